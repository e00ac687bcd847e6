//! The verbs, one file each.

pub mod completion;
pub mod list;
pub mod rollback;
pub mod rotate;
mod server_check;
pub mod status;
pub mod verify;
pub mod version;
mod work;
