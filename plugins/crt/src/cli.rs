//! The command line: the verbs, the flags that all of them have, and the names that completion offers.

use kubectl_core::app::{Context, GlobalFlags, Plugin};
use kubectl_core::error::{Error, ExitCode};

use crate::cmd;

/// Rotate Rancher's cluster registration tokens, without losing a cluster
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-crt", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Crt {
    /// How to connect and how to talk.
    #[command(flatten)]
    pub global: GlobalFlags,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  # Every registration token, who uses it and what state it is in
  kubectl crt list

  # What a rotation would do
  kubectl crt rotate c-x7k2p --dry-run

  # Give a cluster's agent a new token, and revoke the old one once the new one is proven
  kubectl crt rotate c-x7k2p";

/// The verbs.
#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    #[command(visible_alias = "ls")]
    List(cmd::list::List),
}

impl Plugin for Crt {
    const NAME: &'static str = "crt";

    fn global(&self) -> &GlobalFlags {
        &self.global
    }

    async fn run(self, context: Context) -> Result<ExitCode, Error> {
        let Self { global, verb } = self;
        match verb {
            Verb::List(list) => cmd::list::run(list, &global, &context).await,
        }
    }
}
