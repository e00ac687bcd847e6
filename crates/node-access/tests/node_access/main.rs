//! The scripts and the ways to a node, run for real: shells, files, processes.

mod edit;
mod exec;
mod leak;
mod machine;
mod pod;
mod read;
mod service;
