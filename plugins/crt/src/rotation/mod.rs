//! The rotation of a cluster's registration tokens: what is seen ([`view`]), the next safe step ([`decide()`]), the single writes
//! ([`write`]) and what they bring about ([`predict`]).

mod decide;
mod predict;
pub mod view;
pub mod write;

pub use decide::decide;
pub(crate) use decide::was_placed;
use engine::protocol::{Draw, Next, Protocol, Run};
pub use predict::held_values;
use serde::{Deserialize, Serialize};

/// The protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crt;

/// Its deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timer {
    /// `--timeout`: until then the new token must be proven, else the rotation turns back.
    Proof,
    /// `--settle`: a redeploy that Rancher began before the last change of `system` has landed or failed by then.
    Settle,
    /// The time that a fresh agent has to connect before it is restarted.
    Reconnect,
}

impl Protocol for Crt {
    type View = view::View;
    type Notes = view::Notes;
    type Write = write::Write;
    type Timer = Timer;

    fn decide(view: &Self::View, run: Option<&Run<Self>>) -> Next<Self> {
        decide(view, run)
    }

    fn recall(view: &Self::View, claimed: &Run<Self>) -> Option<Self::Notes> {
        decide::recall(view, claimed)
    }

    fn predict(view: &mut Self::View, run: &Run<Self>, write: &Self::Write) {
        predict::predict(view, run, write);
    }

    fn rest(view: &mut Self::View, run: &mut Run<Self>) {
        predict::rest(view, run);
    }

    fn intend(write: &Self::Write, run: &Run<Self>, draw: &mut dyn Draw) -> Self::Notes {
        predict::intend(write, run, draw)
    }
}
