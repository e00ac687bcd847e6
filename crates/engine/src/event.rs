//! What the engine reports while it runs.

use crate::direction::Direction;
use crate::phase::Phase;

/// One thing that happened. Texts hold fingerprints and names, never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The rotation is resumed from a journal.
    Resumed {
        /// Its direction.
        direction: Direction,
        /// Why that is not forward.
        reason: Option<String>,
    },
    /// Nothing of the journaled run exists: a rotation begins anew.
    NothingToResume,
    /// A step is about to be sent.
    Step {
        /// The phase that it belongs to.
        phase: Phase,
        /// The step, in words.
        what: String,
    },
    /// That step was accepted.
    Stepped,
    /// Nothing can be done before something has changed. Reported once for each wait.
    Waiting {
        /// The phase that it belongs to.
        phase: Phase,
        /// What is waited for, as a fragment that follows "waiting for".
        what: String,
    },
    /// Reading or writing failed with a transient error; it is retried.
    TransientError(String),
    /// The run has turned to another direction.
    Turned {
        /// Which one.
        to: Direction,
        /// Why.
        reason: String,
    },
    /// The end is reached.
    Done(Direction),
}

/// Receives events.
pub trait Listener {
    /// Takes note of an event. Must not block.
    fn on(&self, event: Event);
}

impl<F: Fn(Event)> Listener for F {
    fn on(&self, event: Event) {
        self(event);
    }
}
