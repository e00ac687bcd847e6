//! The engine on a real API server, with the small rotation that the exploration walks through: what the model claims is
//! shown here to be so.
//!
//! Every story has a namespace of its own, so that all share one control plane.

#[path = "../../../../crates/engine/tests/pure/badge.rs"]
mod badge;

mod faults;
mod journal;
mod killed;
mod lock;
mod premises;
mod registrar;
mod runner;
mod stopping;
