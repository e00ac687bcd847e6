//! The verbs, one file each.

pub mod completion;
pub mod list;
pub mod status;
pub mod verify;
pub mod version;
