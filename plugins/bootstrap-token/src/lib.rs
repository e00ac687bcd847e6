//! `kubectl bootstrap-token`: the tokens that nodes join with, made, explained, extended, rotated and revoked.

pub mod cli;
pub mod commands;
pub mod controller;
pub mod delivery;
pub mod endpoint;
pub mod lifetime;
pub mod proof;
pub mod report;
pub mod rotation;
pub mod servers;
pub mod side;
