//! `rotate`, `rollback` and what shows a rotation, as every plugin has them: plan, question, lock, progress, and the
//! words and codes for each end.
//!
//! The engine knows no terminal, and neither it nor this crate knows a product. A plugin gives
//! * its [`Protocol`](engine::protocol::Protocol), with a few words about it: [`Product`];
//! * the [`Subject`] at hand: what it is called, and where its Lease is;
//! * for each command the [`Work`]: the actor and what only the product can say of a run.
//!
//! and gets [`Job::run`], which `rotate` and `rollback` consist of; [`several::run`], for several subjects in one command; [`UnderWay`](in_progress::UnderWay), for `status`; and
//! [`Rotations`](leases::Rotations), by which a `list` marks the subjects with one under way.

pub mod again;
pub mod in_progress;
pub mod job;
pub mod leases;
pub mod outcome;
pub mod plan;
pub mod results;
pub mod several;
pub mod subject;
pub mod terminal;

pub use self::again::Again;
pub use self::job::{Job, Work};
pub use self::outcome::{Asked, RotationResult};
pub use self::subject::{Ends, Product, Subject};

/// `apiVersion` of everything that the verbs print for machines.
pub const API_VERSION: &str = "kubectl-rotation.github.io/v1alpha1";
