//! `kubectl bootstrap-token`: creates, explains, extends, rotates and revokes the tokens that nodes join with.

pub mod cli;
mod commands;
mod controller;
mod delivery;
mod endpoint;
mod lifetime;
mod proof;
mod report;
pub mod rotation;
mod servers;
mod side;
