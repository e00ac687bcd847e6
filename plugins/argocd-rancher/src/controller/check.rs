//! What a user may override by name, with `--force=CHECK`.

/// One check. What has no name here cannot be overridden.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The new token reaches the cluster: its agent is connected
    Offline,
    /// The new token may list and watch everything that Argo CD looks at
    Rights,
    /// Argo CD is seen to call with the new token
    Use,
    /// Nothing else, such as GitOps, manages the cluster Secret
    Owner,
    /// Nobody else holds the lock
    Lock,
    /// The journal can be read
    Journal,
}

impl Check {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Rights => "rights",
            Self::Use => "use",
            Self::Owner => "owner",
            Self::Lock => "lock",
            Self::Journal => "journal",
        }
    }
}
