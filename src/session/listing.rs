//! Answers that are one long list: gathered and encoded in slices, between which others have their turn.

use super::Session;
use crate::error::Error;
use bytes::Bytes;
use serde::Serialize;

/// Rows that are encoded before others have their turn.
const SLICE_ROWS: usize = 256;

/// The data of an answer that has one field, a list.
pub(super) struct Listing {
    json: Vec<u8>,
    failed: bool,
}

impl Listing {
    /// An empty list of this name.
    pub(super) fn begin(name: &str) -> Self {
        Self {
            json: format!("{{\"{name}\":[").into_bytes(),
            failed: false,
        }
    }

    /// Adds a row.
    pub(super) fn add(&mut self, row: &impl Serialize) {
        if self.json.last() != Some(&b'[') {
            self.json.push(b',');
        }
        if let Err(error) = serde_json::to_writer(&mut self.json, row) {
            tracing::error!(%error, "a list cannot be encoded");
            self.failed = true;
        }
    }

    /// The data.
    pub(super) fn end(mut self) -> Result<Bytes, Error> {
        if self.failed {
            return Err(Error::internal());
        }
        self.json.extend_from_slice(b"]}");
        Ok(self.json.into())
    }
}

impl Session {
    /// Lists every session, in the order of their ids.
    pub(super) async fn list_sessions(&self) -> Result<Bytes, Error> {
        self.keep_room(self.shared.limits.max_page_bytes).await?;
        let (mut sessions, mut last) = (Vec::new(), 0);
        while let Some(some) = self.shared.registry.next_sessions(&mut last) {
            sessions.extend(some);
            tokio::task::yield_now().await;
        }
        sessions.sort_unstable_by_key(|session| session.session_id);
        let mut listing = Listing::begin("sessions");
        for some in sessions.chunks(SLICE_ROWS) {
            for session in some {
                listing.add(session);
            }
            tokio::task::yield_now().await;
        }
        listing.end()
    }
}
