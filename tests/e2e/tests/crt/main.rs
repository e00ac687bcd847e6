//! `kubectl crt` on a real control plane, one file for each command.
//!
//! One test binary, so that all tests share one environment. Each test has its own clusters, home directory and proxy.

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
