//! The engine of every rotation: observe, decide, apply.
//!
//! A credential must change, two systems must change together, and in the wrong order a cluster is lost. So a rotation has
//! fixed phases ([`phase::Phase`]):
//!
//! | phase | what it does | can it be undone? |
//! |---|---|---|
//! | survey | read both sides, run the preflight checks, refuse what is unsafe; the only write is the Lease | – |
//! | make | create the new credential; the old one stays valid | yes |
//! | place | switch the consumer to the new one | yes |
//! | prove | verify that a real call by the real consumer succeeds with the new one | yes |
//! | retire | revoke the old one | no |
//! | confirm | check that a real call with the old one is rejected | – |
//!
//! # Why nothing can be lost
//! * The safety of a rotation is a property of its pure stages ([`engine::Rotation`]) and of the pure abstraction from objects
//!   to what the stages see. The stages are explored exhaustively by the model checker (crate `model`).
//! * *Retire* needs a proof from the very same look, which only the engine builds ([`engine::Proof`]).
//! * The state lives in the cluster: one Lease per target is both lock and journal ([`lock`], [`journal`]). A run may be killed
//!   after any step; the same command, run again by anyone, observes and resumes ([`engine`]).
//! * Every step is journaled first, by compare-and-swap, and is conditional on the object that was observed.
//! * Until *retire* a run can turn to a rollback: the same stages with old and new exchanged ([`direction`]).
//!
//! # How a rotation uses it
//! It implements [`engine::Rotation`] (pure) and [`controller::Controller`] (I/O). This crate knows no product and no
//! terminal.

pub mod controller;
pub mod credential;
pub mod direction;
pub mod engine;
pub mod event;
mod identity;
pub mod journal;
pub mod lock;
pub mod phase;
pub mod plan;
pub mod rotation;
pub mod run;
