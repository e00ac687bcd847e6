//! `tracing` events of our own crates, for those who asked with `-v`.
//!
//! Only crates on a list are heard: kube writes whole response bodies to its log, which could be Secrets.

use std::io;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::ui::Ui;

/// From `-v=4` on events at debug level are shown, from 8 on all of them.
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
    let heard = Targets::new().with_targets(targets.iter().map(|target| (*target, level)));
    let subscriber = tracing_subscriber::registry().with(heard).with(layer);
    // A second plugin in one process (a test) keeps the first one's log.
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
        self.0.log(4, || client::redact::text(text.trim_end()));
    }
}
