//! What the verbs show: rows, chains of evidence, plans and progress. Everything that decides what is said stands here
//! and does no I/O, except the modules that gather what is to be said ([`leases`], [`evidence`]).

pub mod again;
pub mod chain;
pub mod evidence;
pub mod judge;
pub mod leases;
pub mod outcome;
pub mod plan;
pub mod row;
pub mod terminal;
pub mod under_way;

use rotation::lock::KIND_LABEL;

/// `apiVersion` of everything that these verbs print for machines.
pub const API_VERSION: &str = "kubectl-rotation.github.io/v1alpha1";
/// The kind of rotation that this plugin does, in the label of its Leases.
pub const KIND: &str = "crt";
/// The name of the Lease of a cluster, in the cluster's own namespace on the management side.
pub const LEASE: &str = "kubectl-crt";

/// The label selector of this plugin's Leases.
pub fn lease_selector() -> String {
    format!("{KIND_LABEL}={KIND}")
}
