//! The commands, one file each.

pub(crate) mod list;
pub(crate) mod rescue;
pub(crate) mod rollback;
pub(crate) mod rotate;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod version;
