//! The log of `tracing` events that `-v` turns on.
//!
//! It shows only the events of listed crates. kube logs whole response bodies, which may be Secrets.

use std::io;

use client::{redact, sanitize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::ui::Ui;

/// Shows events at debug level with `-v=4` or more, and all events with `-v=8` or more.
pub(super) fn install(ui: &Ui, targets: &[&str]) {
    let level = match ui.verbosity() {
        0..4 => return,
        4..8 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(Lines(ui.clone()))
        .without_time()
        .with_ansi(false);
    let filter = Targets::new().with_targets(targets.iter().map(|target| (*target, level)));
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    // In a process with two plugins (a test), the log of the first one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Hands each event to the [`Ui`], which owns stderr and keeps it apart from a progress bar.
struct Lines(Ui);

struct Line(Ui, Vec<u8>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.0.clone(), Vec::new())
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.1);
        // One line each, so that no name in it can pretend to be another message.
        self.0.log(4, || sanitize::line(&redact::text(text.trim_end())));
    }
}
