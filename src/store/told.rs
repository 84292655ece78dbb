//! Telling the log of the same damage at most once a second, however many ask for what is damaged.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(1);
/// Places that are told apart; beyond, others wait for a second as well.
const PLACES_MAX: usize = 64;

/// What the log was told of lately, and when.
#[derive(Debug, Default)]
pub struct Told(Mutex<Vec<(String, Instant)>>);

impl Told {
    /// Tells the log that stored events cannot be read; `text` names the place.
    pub fn tell(&self, text: &str) {
        if self.is_new(text, Instant::now()) {
            tracing::error!(
                error = text,
                "stored events cannot be read; those who need them are closed with unavailable"
            );
        }
    }

    fn is_new(&self, text: &str, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|(_, at)| now.duration_since(*at) < PAUSE);
        let new = told.len() < PLACES_MAX && !told.iter().any(|(known, _)| known == text);
        if new {
            told.push((text.to_owned(), now));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_place_is_told_once_a_second_and_another_at_once() {
        let told = Told::default();
        let now = Instant::now();
        assert!(told.is_new("a", now));
        assert!(!told.is_new("a", now + PAUSE / 2));
        assert!(told.is_new("b", now + PAUSE / 2));
        assert!(told.is_new("a", now + PAUSE));
        assert!(!told.is_new("b", now + PAUSE));
        let many = (0..1000).filter(|number| told.is_new(&number.to_string(), now + PAUSE));
        assert!(many.count() <= PLACES_MAX);
    }
}
