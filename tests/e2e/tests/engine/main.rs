//! The engine on a real API server, with the rotation of a badge that the model checker walks through: these tests show that
//! the API server does what the model assumes.
//!
//! Every test has a namespace of its own, so that all share one control plane.

#[path = "../../../../crates/engine/tests/pure/badge.rs"]
mod badge;

mod controller;
mod faults;
mod fixture;
mod journal;
mod kill_matrix;
mod lock;
mod runner;
mod stop;
