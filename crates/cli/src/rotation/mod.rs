//! `rotate`, `rollback` and `status`, as every rotation has them: plan, confirmation, lock, progress, and the words and exit
//! codes for each end.
//!
//! The engine knows no terminal, and neither it nor this crate knows a product. A plugin gives
//! * its [`Rotation`](engine::rotation::Rotation) and [`Controller`](engine::controller::Controller);
//! * the [`Target`]: what it is called, and where its Lease is;
//!
//! and gets [`Job::run`], which `rotate` and `rollback` consist of; [`several::run`] for several targets in one command;
//! [`RotationStatus`](in_progress::RotationStatus) for `status`; and [`LeasedRotations`](leases::LeasedRotations), by which a
//! `list` marks the targets with a rotation in progress.

pub mod commands;
pub mod force;
pub mod in_progress;
pub mod job;
pub mod leases;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod results;
pub mod several;
pub mod target;

pub use self::commands::Commands;
pub use self::job::Job;
pub use self::outcome::{RotationResult, Verb};
pub use self::target::{LeaseName, Target};

/// `apiVersion` of the documents that are printed.
pub const API_VERSION: &str = "kubectl-rotation.github.io/v1alpha1";
