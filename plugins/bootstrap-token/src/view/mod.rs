//! What the verbs show. Nothing here does I/O.

pub mod kubeconfig;
pub mod product;
pub mod row;

/// `apiVersion` of everything that these verbs print for machines.
pub const API_VERSION: &str = "kubectl-rotation.github.io/v1alpha1";
