//! The random requests of chatd's own tests.

#[path = "../../../tests/it/random/operations.rs"]
pub mod operations;
#[path = "../../../tests/it/random/queries.rs"]
mod queries;
