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
