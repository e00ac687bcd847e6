//! The server token of K3s and RKE2: with it a machine joins as a server, and with it the datastore's bootstrap data is encrypted.
//!
//! Each server accepts the token that it loaded at its own start, and serves its own supervisor. So every server is asked on its own,
//! at its own address. The Kubernetes API shows the servers, how they were started, and the snapshots.

pub(crate) mod commands;
pub(crate) mod connections;
mod controller;
pub(crate) mod given_token;
mod in_flight;
pub(crate) mod lease;
pub(crate) mod node_way;
pub(crate) mod probe;
pub(crate) mod put;
mod readiness;
mod recover;
pub mod recovery;
pub(crate) mod report;
pub mod rotation;
pub(crate) mod session;
mod snapshots;
