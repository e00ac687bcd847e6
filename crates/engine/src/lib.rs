//! The engine of every rotation: observe, decide, apply.
//!
//! A credential has to be rotated in two systems at once. In the wrong order, a cluster is lost. So a rotation has
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
//! # Safety
//! * The safety of a rotation is a property of its pure stages ([`rotation::Rotation`]) and of the pure abstraction
//!   from objects to what the stages see. The stages are explored exhaustively by the model checker (crate `model`).
//! * *Retire* needs a proof from the same observation, which only the engine builds ([`rotation::Proof`]).
//! * The state is in the cluster: one Lease per target is both lock and journal ([`lock`], [`journal`]). If a run is
//!   killed, the same command resumes it, also on another machine ([`engine`]).
//! * Every step is journaled first, by compare-and-swap, and is conditional on the object that was observed.
//! * Until *retire* a run can turn to a rollback: the same stages with old and new exchanged ([`direction`]).
//!
//! # How a rotation uses it It implements [`rotation::Rotation`] (pure) and [`controller::Controller`] (I/O). This
//! crate does not depend on a product or a terminal.

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
