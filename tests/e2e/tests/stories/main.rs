//! What users live through, one file for each story, on a real control plane.
//!
//! One test binary, so that all stories share one bed. Each story has clusters, a home directory and a proxy of its own.

mod faults;
mod hands;
mod kill_matrix;
mod leaks;
mod list;
mod one_of_two;
mod other_writers;
mod refusals;
mod registered_cluster;
mod requests;
mod rollback;
mod rotation;
mod state;
mod status;
mod terminal;
mod verify;
mod writes;
mod wrong_cluster;
