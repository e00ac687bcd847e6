//! The engine of every rotation: observe, decide, act.
//!
//! A credential must change, two systems must change together, and in the wrong order a cluster is lost. So rotation is
//! a verb with a fixed grammar ([`phase::Phase`]):
//!
//! | phase | what it means | may it be undone? |
//! |---|---|---|
//! | survey | both sides are read, what is unsafe is refused; nothing is written but the Lease | – |
//! | make | the new credential exists beside the old one, which stays valid | yes |
//! | place | the consumer is pointed at the new one | yes |
//! | prove | a real call with the new one, by the real consumer, has succeeded | yes |
//! | retire | the old one is revoked | no: only forward |
//! | confirm | a real call with the old one is refused | – |
//!
//! # Why nothing can be lost
//! * The safety of a rotation is a property of one pure function, [`protocol::Protocol::decide`]: from what is there
//!   now it says the next safe step. It is explored exhaustively (crate `model`).
//! * The state lives in the cluster: one Lease per subject is both lock and journal ([`lock`], [`journal`]). A run may be killed
//!   after any write; the same command, run again by anybody, observes and goes on ([`engine`]).
//! * Every write is journaled first, by compare-and-swap, and is conditional on the object that was observed.
//! * Until *retire* the other goal is *back*, and it is the same function that leads there.
//!
//! # How a product uses it
//! It writes a [`protocol::Protocol`] (pure) and a [`protocol::Actor`] (I/O), in one module, and one file per verb.
//! Three products were written down before the traits were fixed:
//!
//! **Cluster registration tokens** (`kubectl crt`). View: what Rancher's `system` token, the bridge, the agent's
//! Deployment, pods, Secrets and `stv-aggregation` hold, as fingerprints, and which of them Rancher accepts. Notes: old
//! and new fingerprint, the Deployment's original roll-out settings, the mark of the last restart. Writes: bridge,
//! mint, create Secret, point, restart, release, touch, retire, delete. Timers: proof, settle, touch, reconnect. Back
//! is the same road with the two tokens exchanged.
//!
//! **Bootstrap tokens** (`kubectl bootstrap-token rotate`). View: the two Secrets `bootstrap-token-<id>` (present, usable, signed),
//! what the target of the delivery holds, whether each API server accepts each token. Notes: old and new id (ids are
//! public; the new one is drawn in `intend`), the target, the old value's fingerprint. Writes: create Secret, deliver,
//! delete Secret. Timers: proof, overlap. The old value is in its own Secret until *retire*, so nothing is parked.
//!
//! **Argo CD cluster Secrets** (`kubectl argocd-rancher rotate`). View: which token the cluster Secret's `config`
//! holds, which of the tokens Rancher accepts, whether the run's Secret parks both values, what Argo CD has been seen
//! with. Notes: names of the old and new Rancher token, the Secret's uid. Writes: mint-and-park (a kill between the two is
//! found by the run id in the token's description), swap, swap again (Argo CD may write a stale copy back), delete
//! token, delete the run's Secret. Timers: proof, grace.
//!
//! This crate knows no product and no terminal.

pub mod engine;
pub mod event;
pub mod identity;
pub mod journal;
pub mod leg;
pub mod lock;
pub mod phase;
pub mod plan;
pub mod protocol;
