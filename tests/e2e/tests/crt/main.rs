//! End-to-end tests of `kubectl crt`, on a real control plane with the fake Rancher.
//!
//! All tests share the control planes. Each test has its own registered cluster, home directory and proxy.

mod leaks;
mod list;
mod manual_changes;
mod provisioned;
mod registered_cluster;
mod requests;
mod rescue;
mod rescue_kills;
mod rights;
mod rollback;
mod rotate;
mod state;
mod status;
mod terminal;
mod verify;
mod writes;

/// How many points of all kill matrices are tried at a time. With more, two cores are the limit, and runs end at their time limits.
static KILLED_AT_ONCE: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(10);
