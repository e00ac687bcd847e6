//! Why a rotation is not started or not resumed, and the checks that `--force=CHECK` overrides.

use std::fmt::Display;

use engine::rotation::{Blocker, Check};

use super::observed::Id;
use super::record::Place;

/// No other program manages the token or the delivery.
pub(crate) const OWNER: Check = Check {
    name: "owner",
    help: "the token or the delivery is managed by another program, which may write the old token back",
};
/// The delivery is on this host.
pub(crate) const TARGET: Check = Check {
    name: "target",
    help: "the delivery is a file on a host that is lost for good; nodes that read it may find a revoked token",
};
/// The delivery leads to this cluster.
pub(crate) const CLUSTER: Check = Check {
    name: "cluster",
    help: "the kubeconfig in the delivery trusts another certificate authority than this cluster's",
};

pub(crate) fn not_found(id: &Id) -> Blocker {
    Blocker::new(
        format!("bootstrap token {id} not found"),
        "check the id: `list` shows all tokens",
    )
}

pub(crate) fn not_valid(id: &Id, reasons: &[String]) -> Blocker {
    Blocker::new(
        format!("bootstrap token {id} is not valid: {}", reasons.join("; ")),
        "create a new one with `create`",
    )
}

pub(crate) fn not_accepted(id: &Id) -> Blocker {
    Blocker::new(
        format!("the API server rejects bootstrap token {id}, although its Secret is valid"),
        "run the API server with `--enable-bootstrap-token-auth`",
    )
}

pub(crate) fn no_value(id: &Id) -> Blocker {
    Blocker::new(
        format!("the Secret of bootstrap token {id} holds no value of a token"),
        "revoke it, and create a new one with `create`",
    )
}

pub(crate) fn token_owned(id: &Id, owner: impl Display) -> Blocker {
    let reason = format!("bootstrap token {id} is managed by {owner}");
    Blocker::new(reason, "rotate it there").unless_forced(OWNER.name)
}

pub(crate) fn delivery_owned(at: &str, owner: impl Display) -> Blocker {
    let reason = format!("{at} is managed by {owner}");
    Blocker::new(reason, "change the token at its source").unless_forced(OWNER.name)
}

pub(crate) fn own_login(id: &Id) -> Blocker {
    Blocker::new(
        format!("this command logs in with bootstrap token {id}, which would be revoked"),
        "use a kubeconfig with another login",
    )
}

pub(crate) fn another_server(server: &str) -> Blocker {
    Blocker::new(
        format!("{server} is an API server of another cluster"),
        "name the API servers of this cluster with --api-server",
    )
}

pub(crate) fn delivery_of_another_cluster(at: &str) -> Blocker {
    let reason = format!("the kubeconfig in {at} trusts another certificate authority than this cluster's");
    let hint = "check which cluster it leads to; --force=cluster delivers there anyway";
    Blocker::new(reason, hint).unless_forced(CLUSTER.name)
}

pub(crate) fn short_lived() -> Blocker {
    Blocker::new(
        "the new token would be valid for less than 15 minutes",
        "give a longer --ttl",
    )
}

pub(crate) fn delivery_missing(at: &str) -> Blocker {
    Blocker::new(
        format!("{at} not found"),
        "create it with the present token, or rotate without --deliver",
    )
}

pub(crate) fn delivery_immutable(at: &str) -> Blocker {
    Blocker::new(
        format!("{at} is immutable"),
        "rotate without --deliver, and replace that Secret within the overlap",
    )
}

pub(crate) fn delivery_differs(at: &str, id: &Id, held: Option<&Id>) -> Blocker {
    match held {
        Some(held) => Blocker::new(
            format!("{at} holds bootstrap token {held}, not {id}"),
            format!("rotate {held} instead, write {id} there, or rotate without --deliver"),
        ),
        None => Blocker::new(
            format!("{at} does not hold bootstrap token {id}"),
            "rotate without --deliver: only the token that is rotated is overwritten",
        ),
    }
}

pub(crate) fn delivery_elsewhere(place: &Place) -> Blocker {
    let host = place.host();
    Blocker::new(
        format!("{} is on {host}, not here", place.at),
        format!("run the same command on {host}"),
    )
}
