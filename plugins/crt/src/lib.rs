//! `kubectl crt`: rotates Rancher's cluster registration tokens, and loses no cluster.

pub mod cli;
mod commands;
#[allow(unreachable_pub, reason = "its items were marked when the module was public")]
mod controller;
mod report;
pub mod rotation;
mod sides;
