//! The verbs, one file each.

pub mod completion;
pub mod create;
pub mod extend;
pub mod generate;
pub mod kubeconfig;
pub mod list;
pub mod rbac;
pub mod revoke;
pub mod rollback;
pub mod rotate;
pub mod status;
pub mod verify;
pub mod version;
pub mod work;

/// Whether anything is changed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    /// Change what is to be changed
    #[default]
    None,
    /// Print what would be done, and write nothing
    Client,
    /// Let the API server check it, and store nothing
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
