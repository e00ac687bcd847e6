//! The scripts and the ways to a node, run for real: shells, files, processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue panics where it stopped")]

mod edit;
mod exec;
mod leak;
mod machine;
mod pod;
mod read;
mod service;
