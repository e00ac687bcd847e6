//! `kubectl crt`: rotates the cluster registration tokens of Rancher without losing a cluster.

mod candidates;
pub mod cli;
mod commands;
mod connections;
mod controller;
#[cfg(test)]
mod fixtures;
mod listing;
mod report;
pub mod rotation;
