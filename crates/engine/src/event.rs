//! What the engine tells whoever listens, such as a terminal.

use crate::phase::{Goal, Phase};

/// One thing that happened. Texts hold fingerprints and names, never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The rotation goes on from a journal: in which direction, and why if that is *back*.
    Resumed {
        /// Its goal.
        goal: Goal,
        /// Why the goal is *back*.
        reason: Option<String>,
    },
    /// Nothing of the journaled run stands: a rotation begins anew.
    NothingToResume,
    /// A write is about to be sent.
    Step {
        /// The phase that it belongs to.
        phase: Phase,
        /// The write, in words.
        what: String,
    },
    /// That write was accepted.
    Stepped,
    /// Nothing can be done before the world has moved. Told once for each thing that is waited for.
    Waiting {
        /// The phase that it belongs to.
        phase: Phase,
        /// What is waited for, as a fragment that follows "waiting for".
        what: String,
    },
    /// Reading or writing failed in a way that may pass; it is tried again.
    Hiccup(String),
    /// The new credential could not be proven: the old one is the goal now.
    TurnedBack(String),
    /// The goal is reached.
    Done(Goal),
}

/// Somebody who is told.
pub trait Listener {
    /// Takes note of an event. Must not block.
    fn hear(&self, event: Event);
}

impl<F: Fn(Event)> Listener for F {
    fn hear(&self, event: Event) {
        self(event);
    }
}
