//! The progress bar, for a person who waits at a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar on standard error, or none where nobody would see it.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for one scenario; indicatif itself hides it when standard error is no terminal.
    pub fn new(scenario: &str, visible: bool) -> Self {
        let target = if visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template("{prefix:9} [{bar:40}] {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(scenario.to_owned());
        Self { bar }
    }

    /// Begins a stretch of `length` steps.
    pub fn begin(&self, what: &'static str, length: u64) {
        self.bar.set_length(length);
        self.bar.set_position(0);
        self.bar.set_message(what);
    }

    /// Says how far the stretch is.
    pub fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
