//! The rotation of a bootstrap token: what is seen ([`view`]), the next safe step ([`decide()`]), the single writes ([`mod@write`])
//! and what they bring about.
//!
//! O is the token with the given id, N the one that takes its place. Both are Secrets `bootstrap-token-<id>` in
//! kube-system, which hold the value themselves: nothing has to be parked anywhere. Ids are public; of values only
//! fingerprints are seen here.
//!
//! | step | write | it may be undone |
//! |---|---|---|
//! | make | N's id is drawn and journaled, then its Secret is created by a plain POST: usages, groups, description and labels of O | yes |
//! | make | – until the API server accepts N, asked with N itself, and cluster-info is signed with N where it is with O | yes |
//! | place | the target (`secret:NS/NAME/KEY` or `file:PATH`, none or one) gets N, where it holds O | yes |
//! | prove | – until the API server accepts what is read back from the target, and the overlap has passed | yes |
//! | retire | O's Secret is deleted | no |
//! | confirm | – until the API server refuses O (it remembers an accepted token for ten seconds) | – |
//!
//! Where the way back begins, and what becomes of it when O dies of old age meanwhile, is said in `decide.rs`.

mod decide;
mod predict;
mod recall;
pub mod view;
pub mod write;

pub use decide::decide;
pub(crate) use decide::leg;
use engine::protocol::{Draw, Next, Protocol, Run};
pub(crate) use predict::record;
use serde::{Deserialize, Serialize};

/// The protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootstrapToken;

/// Its deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timer {
    /// `--timeout`: until then the new token must be proven, else the rotation turns back.
    Proof,
    /// `--overlap`: who has read the token that is being replaced has used it by then.
    Overlap,
    /// The time that the signer has before it is given another reason to look at the new token. Let it be a quarter of
    /// `--timeout`.
    Touch,
}

impl Protocol for BootstrapToken {
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

    fn intend(write: &Self::Write, run: &Run<Self>, draw: &mut dyn Draw) -> Self::Notes {
        predict::intend(write, run, draw)
    }
}
