//! `kubectl bootstrap-token`: the tokens that nodes join with, made, explained, extended, rotated and revoked.

pub mod cli;
mod commands;
#[allow(unreachable_pub, reason = "its items were marked when the module was public")]
mod controller;
mod delivery;
mod endpoint;
mod lifetime;
mod proof;
mod report;
pub mod rotation;
mod servers;
mod side;
