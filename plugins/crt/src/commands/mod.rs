//! The commands, one file each.

pub mod completion;
pub mod list;
pub mod rollback;
pub mod rotate;
pub mod status;
pub mod verify;
pub mod version;
