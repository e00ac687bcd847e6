//! `kubectl crt`: rotates Rancher's cluster registration tokens, and loses no cluster.

pub mod rotation;
pub mod sides;
