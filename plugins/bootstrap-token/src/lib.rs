//! `kubectl bootstrap-token`: the tokens that nodes join with, made, explained, extended, rotated and revoked.

pub mod actor;
pub mod cli;
pub mod cmd;
pub mod endpoint;
pub mod lifetime;
pub mod proof;
pub mod rotation;
pub mod servers;
pub mod side;
pub mod target;
pub mod view;
