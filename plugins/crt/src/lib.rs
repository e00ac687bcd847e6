//! `kubectl crt`: rotates Rancher's cluster registration tokens, and loses no cluster.

pub mod actor;
pub mod cli;
pub mod cmd;
pub mod rotation;
pub mod sides;
pub mod view;
