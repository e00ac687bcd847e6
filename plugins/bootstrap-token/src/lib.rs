//! `kubectl bootstrap-token`: creates, checks, extends, rotates and revokes the tokens that nodes join a cluster with.

// Public for the model checker in `tests/agent_token`.
#[doc(hidden)]
pub mod agent_token;
mod candidates;
pub mod cli;
mod cluster;
mod commands;
mod controller;
mod delivery;
mod endpoint;
mod join;
mod lifetime;
mod private_file;
mod probe;
mod report;
#[doc(hidden)]
pub mod rights;
// Public for the model checker in `tests/exploration`.
#[doc(hidden)]
pub mod rotation;
// Public for the model checker in `tests/server_token`.
#[doc(hidden)]
pub mod server_token;
mod servers;
mod snapshots;
mod template;
