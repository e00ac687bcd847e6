//! What users live through, one file for each story, on a real control plane.
//!
//! One test binary, so that all stories share one bed. Each story has clusters, a home directory and a proxy of its own.

mod leaks;
mod list;
mod manual_changes;
mod registered_cluster;
mod requests;
mod rollback;
mod rotate;
mod state;
mod status;
mod terminal;
mod verify;
mod writes;
