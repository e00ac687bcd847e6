//! `--dry-run` as kubectl has it.

/// The value of `--dry-run`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    /// Apply the changes
    #[default]
    None,
    /// Print the changes without sending them
    Client,
    /// Submit the changes as a server-side dry run, without persisting them
    Server,
}

impl DryRun {
    /// The suffix of the result, as in kubectl.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}
