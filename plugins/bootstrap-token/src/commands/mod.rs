//! The commands, one file each.

pub(crate) mod create;
pub(crate) mod extend;
pub(crate) mod generate;
pub(crate) mod kubeconfig;
pub(crate) mod list;
pub(crate) mod rbac;
pub(crate) mod revoke;
pub(crate) mod rollback;
pub(crate) mod rotate;
mod rotation_command;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod version;
