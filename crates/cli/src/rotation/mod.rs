//! The common part of `rotate`, `rollback` and `status`: plan, confirmation, lock, progress, final message and exit
//! code.
//!
//! A plugin provides
//! * a [`Rotation`](engine::rotation::Rotation) and a [`Controller`](engine::controller::Controller);
//! * the [`Target`]: its name and its Lease.
//!
//! Its commands use
//! * [`Job::run`] for `rotate` and `rollback` of one target, [`several::run`] for several targets;
//! * [`RotationStatus`](in_progress::RotationStatus) for `status`;
//! * [`LeasedRotations`](leases::LeasedRotations) for a `list` that marks the targets with a rotation in progress.

pub mod commands;
pub mod force;
pub mod in_progress;
mod job;
pub mod leases;
pub mod outcome;
mod plan;
mod progress;
pub mod results;
pub mod several;
pub mod target;

pub use self::commands::{Commands, OtherKind};
pub use self::job::Job;
pub use self::outcome::{RotationResult, Verb};
pub use self::target::{LeaseName, Target};

/// `apiVersion` of the documents that are printed.
pub const API_VERSION: &str = "kubectl-rotation.github.io/v1alpha1";
