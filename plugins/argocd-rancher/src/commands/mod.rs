//! The verbs, one file each; [`mod@work`] is what `rotate` and `rollback` share.

pub mod add;
pub mod completion;
pub mod list;
pub mod remove;
pub mod rollback;
pub mod rotate;
pub mod status;
pub mod verify;
pub mod version;
mod work;

use client::duration;
use rancher::api_token::{Lifetime, NotALifetime};

/// The time to live of a token, as it is typed.
fn lifetime(text: &str) -> Result<Lifetime, String> {
    let duration = duration::parse(text).map_err(|error| error.to_string())?;
    duration.try_into().map_err(|error: NotALifetime| error.to_string())
}
