//! The receiver of messages while requests are sent. The terminal implements it.

use std::any::Any;
use std::fmt::Debug;

/// Receives warnings and log lines, and lends the terminal to credential plugins.
pub trait Console: Debug + Send + Sync {
    /// Shows a warning that a server sent. The same text is shown once.
    fn warn(&self, text: &str);

    /// The level of `-v`. Lines of a higher level are not formatted.
    fn verbosity(&self) -> u8;

    /// Shows a line of the log.
    fn log(&self, line: &str);

    /// Whether a credential plugin may ask the user: stdin is a terminal.
    fn is_interactive(&self) -> bool;

    /// Leaves the terminal to a credential plugin until the returned value is dropped.
    fn lend_terminal(&self) -> Box<dyn Any + Send>;
}

/// Shows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Console for Silent {
    fn warn(&self, _: &str) {}

    fn verbosity(&self) -> u8 {
        0
    }

    fn log(&self, _: &str) {}

    fn is_interactive(&self) -> bool {
        false
    }

    fn lend_terminal(&self) -> Box<dyn Any + Send> {
        Box::new(())
    }
}
