//! The rotation of the token that Argo CD has for one cluster: what is seen ([`view`]), the next safe step ([`decide()`]), the
//! single writes ([`mod@write`]) and what they bring about.
//!
//! O is the token in the cluster Secret, N the one that takes its place. Rancher tells a token's value once, in the answer to
//! its making. So both values are parked in a Secret of the rotation's own, until it has ended: the value of N because nobody
//! will be told it again, that of O because the way back needs it.
//!
//! | step | write | it may be undone |
//! |---|---|---|
//! | make | O is parked; N is minted, scoped to the one cluster, and parked | yes |
//! | make | – until Rancher lets N in, alone and through the agent's tunnel, and N may list what Argo CD lists | yes |
//! | place | N into the cluster Secret, in place, by compare-and-swap | yes |
//! | prove | – until Argo CD was seen to call with N, where it watches the cluster at all | yes |
//! | prove | – until the grace time has passed: Argo CD may write its old copy of the Secret back, and N is put there again | yes |
//! | retire | O is deleted in Rancher by its name | no |
//! | confirm | – until Rancher refuses O; then the parked values are deleted | – |
//!
//! Where the way back begins, and what becomes of it when O dies meanwhile, is said in `decide.rs`.

mod decide;
mod predict;
mod recall;
pub mod view;
pub mod write;

pub use decide::decide;
pub(crate) use decide::leg;
use engine::protocol::{Draw, Next, Protocol, Run};
use serde::{Deserialize, Serialize};

/// The protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArgocdRancher;

/// Its deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timer {
    /// `--timeout`: until then the new token must be proven, else the rotation turns back.
    Proof,
    /// `--grace`: by then Argo CD has no old copy of the Secret any more that it could write back, and whatever it began with
    /// the token that goes is over.
    Grace,
}

impl Protocol for ArgocdRancher {
    type View = view::View;
    type Notes = view::Notes;
    type Write = write::Write;
    type Timer = Timer;

    fn decide(view: &Self::View, run: Option<&Run<Self>>) -> Next<Self> {
        decide(view, run)
    }

    fn recall(view: &Self::View, claimed: &Run<Self>) -> Option<Self::Notes> {
        recall::recall(view, claimed)
    }

    fn predict(view: &mut Self::View, run: &Run<Self>, write: &Self::Write) {
        predict::predict(view, run, write);
    }

    fn rest(view: &mut Self::View, run: &mut Run<Self>) {
        predict::rest(view, run);
    }

    fn intend(write: &Self::Write, run: &Run<Self>, _: &mut dyn Draw) -> Self::Notes {
        predict::intend(write, run)
    }
}
