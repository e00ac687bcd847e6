//! How a script comes to a node.

use std::time::Duration;

use futures::future::BoxFuture;
use zeroize::Zeroizing;

use crate::error::NodeProblem;
use crate::script::Script;
use crate::target::NodeTarget;

/// What a script printed.
pub struct Output {
    /// Its standard output. It may contain a secret that the script was asked for.
    pub stdout: Zeroizing<Vec<u8>>,
    /// Its standard error. It is not trusted to be without secrets, and is shown redacted.
    pub stderr: Zeroizing<String>,
    /// Its exit code. `None`: a signal.
    pub code: Option<i32>,
}

/// A way to run a script in a shell of a node, as root.
pub trait NodeShell: Send + Sync {
    /// Its flag, for messages: `--node-exec`, `--via pod`.
    fn way(&self) -> &'static str;

    /// Whether a result may contain a secret.
    fn returns_secrets(&self) -> bool;

    /// How long the node has to wait before it restarts the service, so that the script ends first.
    fn restart_delay(&self) -> Duration;

    /// The limit of a script.
    fn timeout(&self) -> Duration;

    /// Runs a script. `Ok`: it ended. Its result may still be an error.
    fn run<'a>(&'a self, node: &'a NodeTarget, script: &'a Script) -> BoxFuture<'a, Result<Output, NodeProblem>>;
}
