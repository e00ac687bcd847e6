//! `kubectl crt`: rotates the cluster registration tokens of Rancher without losing a cluster.

mod candidates;
pub mod cli;
mod commands;
mod connections;
mod contexts;
mod controller;
#[cfg(test)]
mod fixtures;
mod listing;
mod report;
#[doc(hidden)]
pub mod rights;
pub mod rotation;
