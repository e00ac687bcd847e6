//! Reads and changes the nodes of K3s and RKE2: where a token is configured, the files of a server, and its service. What is done in
//! which order is not decided here.
//!
//! How it is used:
//!
//! 1. [`NodeTarget::new`] names a node by its name and its address, both parsed.
//! 2. A [`NodeShell`] brings a script to a node: [`NodeExec`] runs a command of the user, such as ssh, and [`NodePod`] a privileged pod.
//!    The third way is by hand: the caller prints an [`Instruction`], and waits until it sees from outside that it is done.
//! 3. [`NodeAccess`] has the operations. [`NodeAccess::read`] returns a [`NodeState`]; [`NodeAccess::remove`], [`NodeAccess::set`],
//!    [`NodeAccess::restore`] and [`NodeAccess::forget`] edit a [`TokenPlace`]; [`NodeAccess::read_token`], [`NodeAccess::write_token`] and
//!    [`NodeAccess::remove_passwd`] are for the files of a server; [`NodeAccess::service`] is for its service.
//!
//! Choices that callers have to know:
//!
//! - A script is one brace group on standard input. A script that arrives in part does nothing. A result has an end: without it the
//!   error is [`NodeProblem::Incomplete`]. [`NodeProblem::is_harmless`] says whether nothing was changed for certain; otherwise read again.
//! - Secrets are on standard input or in a Secret, never an argument or in the environment of a process. [`NodeExec`] can return them,
//!   [`NodePod`] cannot ([`NodeAccess::returns_secrets`]). Where fingerprints suffice, ask for nothing else.
//! - A fingerprint is that of the password part, so it equals `supervisor::ServerToken::hash`.
//! - Each edit is conditional on the SHA-256 of the file that was read ([`TokenPlace::sha256`]). An edit returns the next one. After an edit,
//!   the lines of the other places of this file are no longer right: read again.
//! - [`TokenPlace::blocker`] says why a place cannot be edited: a value on several lines, an anchor, JSON, a key that occurs twice,
//!   `Environment=` in a unit, arguments that are not one on a line as installers write them. Such an edit is refused.
//! - The backup `FILE.<run>.bak` is the version that the first edit of the run has found. [`NodeAccess::restore`] puts back the whole
//!   file. For a `token-file`, [`NodeAccess::remove`] removes the line that names it, and [`NodeAccess::set`] writes the file; a removed
//!   line comes back by `restore`. An edit of arguments is followed by `daemon-reload`.
//! - [`ServiceAction::Restart`] and [`ServiceAction::Start`] are handed over: `Ok` means that the service manager has accepted it, not that
//!   the service is ready. A pod hands a restart to `systemd-run` with a delay of 2 s, so that it ends first; with OpenRC or a command
//!   of the user this is refused. A process that takes over a run has to wait that long too.
//! - [`ServiceAction::StartOnce`] writes a drop-in `Restart=no` to `/run`, which [`ServiceAction::EndOnce`] removes. With
//!   `--start-command` the command has to take care of that itself.
//! - Compare [`NodeState::machine_id`] with `status.nodeInfo.machineID` of the Node: a wrong address reaches another machine.
//! - A pod is deleted whatever becomes of the future that waits for its result. The process has to wait for that before it ends: see
//!   [`NodePod::new`]. [`NodePod::clean_up`] deletes what killed processes have left. Call it before the first pod, and when a run is
//!   resumed.
//!
//! For tests, the environment variable `KUBECTL_ROTATION_ROOT` of the node's shell is put before each path, so that a directory can be a
//! node.

mod access;
mod configuration;
mod error;
mod exec;
mod image;
mod instruction;
mod options;
mod pod;
mod record;
mod script;
mod shell;
mod state;
mod target;

pub use access::{Edited, NodeAccess, ServiceAction};
pub use configuration::{Configuration, PlaceKind, TokenKey, TokenPlace};
pub use error::{Error, NodeProblem, Result};
pub use exec::{InvalidCommand, NodeExec};
pub use instruction::Instruction;
pub use options::{InvalidUnitName, NodeRole, ServiceOptions, UnitName};
pub use pod::NodePod;
pub use script::Script;
pub use shell::{NodeShell, Output};
pub use state::{NodeState, PasswdFile, ServerTokenFile, ServiceManager, ServiceState, StateFile};
pub use target::{InvalidNodeName, NodeTarget};
