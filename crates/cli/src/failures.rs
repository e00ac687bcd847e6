//! The failures of a command for several targets. One of them does not stop the others, and the exit code is not 0.

use client::error::{Error, Kind};

use crate::ui::Ui;

/// The failures so far. Each was printed.
pub struct Failures<'a> {
    ui: &'a Ui,
    /// What the targets are: "clusters".
    noun: &'static str,
    targets: usize,
    failed: Vec<(String, Error)>,
}

impl<'a> Failures<'a> {
    /// Of this many targets. `noun`: such as "clusters".
    pub fn of(ui: &'a Ui, noun: &'static str, targets: usize) -> Self {
        Self {
            ui,
            noun,
            targets,
            failed: Vec::new(),
        }
    }

    /// Prints the failure of one target, so that the next can follow.
    ///
    /// # Errors
    /// The failure itself, if there is only one target, or if it is an interrupt, which ends the command.
    pub fn add(&mut self, target: &str, error: Error) -> Result<(), Error> {
        if self.targets == 1 || matches!(error.kind, Kind::Interrupted | Kind::Terminated | Kind::BrokenPipe) {
            return Err(error);
        }
        self.ui.error(&error);
        self.failed.push((target.to_owned(), error));
        Ok(())
    }

    /// What was found by a name of the command line. `None`: it was not found, is ambiguous or must not be read, which was printed.
    ///
    /// # Errors
    /// As for [`Self::add`], and if the failure is not one of this name: it would be that of every other name too.
    pub fn found<T>(&mut self, name: &str, found: Result<T, Error>) -> Result<Option<T>, Error> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Usage | Kind::Forbidden) => {
                self.add(name, error).map(|()| None)
            }
            Err(error) => Err(error),
        }
    }

    /// Each of them, with its target.
    pub fn all(&self) -> &[(String, Error)] {
        &self.failed
    }

    /// `Ok` if there was none. `done`: such as "added".
    pub fn end(self, done: &str) -> Result<(), Error> {
        let Some((_, first)) = self.failed.first() else {
            return Ok(());
        };
        let Self { noun, targets, .. } = self;
        let message = format!("{} of {targets} {noun} were not {done}", self.failed.len());
        Err(Error::new(kind_among_others(first), message))
    }
}

/// The kind of a failure where other targets may have succeeded. A wrong name is then not a wrong command line.
pub(crate) fn kind_among_others(error: &Error) -> Kind {
    match error.kind {
        Kind::Usage => Kind::Failed,
        kind => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitCode;
    use crate::ui::{Terminal, UiFlags};

    fn ambiguous() -> Result<(), Error> {
        Err(Error::usage("cluster \"oslo\" is ambiguous"))
    }

    #[test]
    fn a_wrong_name_among_others_is_a_failure_and_alone_it_ends_the_command() {
        let (ui, printed) = Ui::buffered(Terminal::default(), UiFlags::default(), "");
        let mut failures = Failures::of(&ui, "clusters", 3);
        assert_eq!(failures.found("oslo", ambiguous()), Ok(None));
        assert_eq!(failures.found("bonn", Ok(())), Ok(Some(())));
        let unknown = Error::new(Kind::NotFound, "cluster \"x\" not found");
        assert_eq!(failures.found::<()>("x", Err(unknown)), Ok(None));
        let names: Vec<&str> = failures.all().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["oslo", "x"]);
        assert_eq!(
            printed.err(),
            "error: cluster \"oslo\" is ambiguous\nerror: cluster \"x\" not found\n"
        );
        let ended = failures.end("verified").unwrap_err();
        assert_eq!(ended.message, "2 of 3 clusters were not verified");
        assert_eq!(ExitCode::from(&ended), ExitCode::Failed);

        let mut failures = Failures::of(&ui, "clusters", 1);
        let error = failures.found("oslo", ambiguous()).unwrap_err();
        assert_eq!(ExitCode::from(&error), ExitCode::Usage);
    }

    #[test]
    fn a_failure_of_the_server_or_an_interrupt_ends_the_command() {
        let (ui, _) = Ui::buffered(Terminal::default(), UiFlags::default(), "");
        let mut failures = Failures::of(&ui, "clusters", 2);
        for kind in [Kind::Unreachable, Kind::Unauthorized, Kind::Interrupted] {
            let error = Error::new(kind, "no response");
            assert_eq!(failures.found::<()>("oslo", Err(error.clone())), Err(error));
        }
        assert!(failures.all().is_empty());
    }
}
