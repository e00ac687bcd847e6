//! The verbs, one file each.

pub mod add;
pub mod completion;
pub mod list;
pub mod remove;
pub mod verify;
pub mod version;
