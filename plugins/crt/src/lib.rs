//! `kubectl crt`: rotates Rancher's cluster registration tokens, and loses no cluster.

pub mod cli;
mod commands;
mod controller;
mod report;
pub mod rotation;
mod sides;
