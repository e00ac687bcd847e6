//! `kubectl crt`: rotates Rancher's cluster registration tokens, and loses no cluster.

pub mod cli;
pub mod commands;
pub mod controller;
pub mod report;
pub mod rotation;
pub mod sides;
