//! `kubectl bootstrap-token`: rotates the tokens with which nodes join, and leaves no node at the door.

pub mod rotation;
