//! The commands, one file each; [`mod@run`] is what `rotate` and `rollback` share.

pub(crate) mod add;
pub(crate) mod completion;
pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod rollback;
pub(crate) mod rotate;
mod run;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod version;

use client::duration;
use rancher::api_token::{InvalidLifetime, Lifetime};

/// The time to live of a token, as it is typed.
fn lifetime(text: &str) -> Result<Lifetime, String> {
    let duration = duration::parse(text).map_err(|error| error.to_string())?;
    duration.try_into().map_err(|error: InvalidLifetime| error.to_string())
}
