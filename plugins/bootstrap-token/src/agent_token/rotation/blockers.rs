//! Why a rotation is not started or is stopped. What is about the cluster comes from the rotation of the server token.

use client::secret::Fingerprint;
use engine::rotation::Blocker;

pub(super) use crate::server_token::rotation::blockers::{no_output, not_up, only, rejects, same_token, unmeasured};

pub(super) fn backup_gone() -> Blocker {
    Blocker::new(
        "the backup Secret of the rotation is gone, and not every server accepts the same agent token",
        "restart nothing; if the agent token that was begun is known, pass it as the new one, with --force=journal",
    )
}

pub(super) fn another_token(given: Fingerprint) -> Blocker {
    Blocker::new(
        format!("{given} is not the server token of the rotation in progress"),
        "pass the server token that it began with",
    )
}

pub(super) fn accepts_another(server: &str) -> Blocker {
    Blocker::new(
        format!("server {server} accepts neither the old agent token nor the new one"),
        "restart nothing; find out who has changed its configuration, and put the old or the new token back",
    )
}

pub(super) fn old_rejected(server: &str) -> Blocker {
    Blocker::new(
        format!("server {server} rejects the agent token that was passed as the old one"),
        "pass the one that every server accepts, or none",
    )
}

pub(super) fn differ() -> Blocker {
    Blocker::new(
        "servers accept different agent tokens",
        "restart nothing; complete the change that was begun: pass the token that was to be the new one as the new one",
    )
}

pub(super) fn exists() -> Blocker {
    Blocker::new("an agent token is already set", "use `rotate` to change it")
}

pub(super) fn none_exists() -> Blocker {
    Blocker::new(
        "no agent token is set: agents use the server token",
        "use `set` to have one",
    )
}

pub(super) fn is_server_token() -> Blocker {
    Blocker::new(
        "the new agent token is the server token",
        "pass another one, or use `remove`",
    )
}

pub(super) fn configuration_unknown(server: &str) -> Blocker {
    Blocker::new(
        format!("it is not known which agent token the configuration of server {server} has"),
        "make the files of that node readable, and run the same command again; restart nothing",
    )
}

pub(super) fn starts_unknown() -> Blocker {
    Blocker::new(
        "it is not known when the servers have started, which decides where the files are saved",
        "add --node-exec or --via pod; on K3s, a kubeconfig that may read /metrics of each server is enough",
    )
}

pub(super) fn order_unknown(servers: &str) -> Blocker {
    Blocker::new(
        format!("{servers} may not start again, and it is not known which of them has started last"),
        "restart nothing; add --node-exec, so that the times of `server/cred/passwd` can be read",
    )
}
