//! Why a rotation is not started or is stopped, and the checks that `--force=CHECK` overrides.

use std::fmt::Display;

use client::secret::Fingerprint;
use engine::rotation::{Blocker, Check};

use super::observed::Role;

/// No server has a token in its configuration.
pub(crate) const UNPIN: Check = Check {
    name: "unpin",
    help: "it is not proven that no server has a token in its configuration; one that has the old one there does not start again",
};
/// The procedure was measured on such clusters.
pub(crate) const UNMEASURED: Check = Check {
    name: "unmeasured",
    help: "the procedure was not measured on RKE2, on an external datastore with several servers, or on another number of servers \
           than one and three",
};

const WAIT: &str = "wait until every server is ready, and run the same command again";
const RECOVER: &str = "run `recover`";

/// A state that only `recover` mends. Nothing is written any more.
pub(crate) fn recover(reason: impl Into<String>) -> Blocker {
    Blocker::new(reason, RECOVER)
}

pub(crate) fn backup_gone() -> Blocker {
    Blocker::new(
        "the backup Secret of the rotation is gone, and nothing shows that the rotation was complete",
        "pass the token that every server accepts, and if nothing is left of the rotation, add --force=journal; where servers accept \
         different ones, run `recover`",
    )
}

pub(crate) fn harvester() -> Blocker {
    Blocker::new(
        "this cluster is a Harvester, which configures the token of its nodes itself",
        "see the documentation of Harvester; a token that is changed elsewhere does not survive the next start of a node",
    )
}

pub(crate) fn provisioned() -> Blocker {
    Blocker::new(
        "Rancher has provisioned this cluster and owns its token",
        "change the token in Rancher; it writes its own into the configuration of every node",
    )
}

pub(crate) fn no_endpoint(is_known: bool) -> Blocker {
    let reason = if is_known {
        "a server has a version that cannot change its token"
    } else {
        "the version of a server is not known"
    };
    Blocker::new(
        reason,
        "upgrade every server to v1.25.15, v1.26.10, v1.27.7, v1.28.3 or later",
    )
}

pub(crate) fn ca_rotation() -> Blocker {
    Blocker::new("a new CA waits for restarts", "restart every server first")
}

pub(crate) fn no_server() -> Blocker {
    Blocker::new("no server was found", "check the context and --server-address")
}

pub(crate) fn no_output() -> Blocker {
    Blocker::new(
        "nothing says where the new token goes",
        "add --write-token FILE or --print-token",
    )
}

pub(crate) fn same_token() -> Blocker {
    Blocker::new(
        "the new token is the old one",
        "pass another one, or none to have one created",
    )
}

pub(crate) fn role(server: &str, role: Role) -> Blocker {
    let what = match role {
        Role::ControlPlaneOnly => "has no etcd",
        Role::EtcdOnly | Role::Full => "has no control plane",
    };
    Blocker::new(
        format!("server {server} {what}: it does not start without a configured token"),
        "rotate by hand, as the documentation describes",
    )
}

pub(crate) fn not_up(server: &str) -> Blocker {
    Blocker::new(
        format!("server {server} is not ready, or not a voting member of etcd"),
        WAIT,
    )
}

pub(crate) fn rejects(servers: &[&str]) -> Blocker {
    let reason = match servers {
        [server] => format!("server {server} rejects the token"),
        _ => format!("servers {} reject the token", servers.join(", ")),
    };
    Blocker::new(
        reason,
        "pass the token that every server accepts; `verify` shows it. After a rotation that is the new one",
    )
}

pub(crate) fn members() -> Blocker {
    Blocker::new(
        "the members of etcd are not the servers",
        "remove the member whose server is gone",
    )
}

pub(crate) fn joining(servers: &str) -> Blocker {
    Blocker::new(
        format!("{servers} is joining"),
        "wait until it has joined; let no other join",
    )
}

pub(crate) fn encryption(reason: impl Display) -> Blocker {
    Blocker::new(
        format!("a change of the token could lose every Secret of the cluster: {reason}"),
        "complete the rotation of the encryption keys, with the restart of every server",
    )
}

pub(crate) fn encryption_unknown() -> Blocker {
    Blocker::new("the encryption status of a server is not known", WAIT)
}

pub(crate) fn clocks(are_known: bool) -> Blocker {
    let reason = if are_known {
        "the clocks of the servers differ by 2 s or more"
    } else {
        "the clock of a server is not known"
    };
    Blocker::new(
        reason,
        "set the clocks, for example with chrony; K3s compares the times of files",
    )
}

pub(crate) fn unmeasured(what: impl Display) -> Blocker {
    Blocker::new(
        format!("the procedure was not measured on {what}"),
        "try it on a copy of the cluster; --force=unmeasured rotates anyway",
    )
    .unless_forced(UNMEASURED.name)
}

pub(crate) fn configuration_unknown(server: &str) -> Blocker {
    Blocker::new(
        format!("it is not known whether the configuration of server {server} has a token"),
        "add --node-exec; --force=unpin rotates anyway",
    )
    .unless_forced(UNPIN.name)
}

pub(crate) fn not_the_datastores(value: Fingerprint) -> Blocker {
    Blocker::new(
        format!(
            "a server does not have {value} in its files, although it accepts it: an earlier change was not completed"
        ),
        RECOVER,
    )
}

pub(crate) fn another_token(given: Fingerprint) -> Blocker {
    Blocker::new(
        format!("{given} is no token of the rotation in progress"),
        "pass the old token or the new one",
    )
}

pub(crate) fn configured_again(server: &str) -> Blocker {
    Blocker::new(
        format!("the configuration of server {server} has another token again, with which it does not start"),
        "pause configuration management, remove the token there, and run the same command again; restart nothing",
    )
}

pub(crate) fn only(rest: &str) -> Blocker {
    Blocker::new(
        format!("{rest} still to be restarted (--only)"),
        "run the same command without --only to restart the rest",
    )
}
