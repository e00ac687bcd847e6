//! `kubectl crt`: rotates the cluster registration tokens of Rancher without losing a cluster.

pub mod cli;
mod commands;
mod connections;
mod controller;
mod report;
pub mod rotation;
