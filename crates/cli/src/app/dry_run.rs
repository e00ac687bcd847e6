//! `--dry-run` as kubectl has it.

/// Whether anything is changed. The words serve a verb that makes one change as well as one that carries out a plan.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    /// Do it
    #[default]
    None,
    /// Print what would be done, and write nothing
    Client,
    /// Print what would be done, let servers check what they can check of it, and store nothing
    Server,
}

impl DryRun {
    /// What stands behind the result of a verb, as kubectl says it.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}
