//! The terminal as the Kubernetes client uses it.

use std::any::Any;

use client::console::Console;

use super::Ui;

impl Console for Ui {
    fn warn(&self, text: &str) {
        Ui::warn(self, text);
    }

    fn verbosity(&self) -> u8 {
        Ui::verbosity(self)
    }

    fn log(&self, line: &str) {
        Ui::log(self, 0, || line.to_owned());
    }

    fn is_interactive(&self) -> bool {
        self.terminal().stdin
    }

    fn lend_terminal(&self) -> Box<dyn Any + Send> {
        Box::new(self.step_aside())
    }
}
