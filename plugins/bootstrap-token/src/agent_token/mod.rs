//! The agent token of K3s and RKE2: with it a machine joins as an agent. Where none is configured, that is the server token.

pub(crate) mod commands;
mod controller;
pub mod rotation;
