//! The events of a run.

use crate::direction::Direction;
use crate::phase::Phase;

/// An event. Its text contains fingerprints and names, never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// No object of the journaled run exists, so a new rotation begins.
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
    /// A wait has begun.
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
    /// The run is finished.
    Done(Direction),
}

/// Receives events.
pub trait Listener {
    /// Receives an event. Must not block.
    fn on(&self, event: Event);
}

impl<F: Fn(Event)> Listener for F {
    fn on(&self, event: Event) {
        self(event);
    }
}
