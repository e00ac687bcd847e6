//! Everything that speaks against a rotation, else what it starts from. Nothing is written, and no PUT is sent.

use client::secret::Fingerprint;
use engine::rotation::Blocker;
use supervisor::SupervisorKind;
use supervisor::node::NodeManager;

use super::gates::{Gated as _, Servers};
use super::observed::{
    Clocks, Configured, Datastore, Encryption, Files, Login, Members, Observed, Output, Role, Server,
};
use super::record::Record;
use super::{ServerToken, blockers};

pub(super) fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
    let all = ServerToken::servers(seen);
    let mut found = cluster(all);
    if seen.output == Output::Nowhere {
        found.push(blockers::no_output());
    }
    if seen.given_new == Some(seen.given) {
        found.push(blockers::same_token());
    }
    let rejecting = rejecting(all);
    if !rejecting.is_empty() {
        found.push(blockers::rejects(&rejecting));
    }
    for (name, server) in &seen.servers {
        if rejecting.contains(&name.as_str()) {
            continue;
        }
        found.extend(one(all, name, server, seen.given));
        if server.configured == Configured::Unknown && !seen.options.force_unpin {
            found.push(blockers::configuration_unknown(name));
        }
        let is_other = match server.files {
            Files::Hold(value) => value != seen.given,
            Files::Damaged => true,
            Files::Unknown => false,
        };
        if is_other && server.accepts == Login::Accepts(seen.given) {
            found.push(blockers::not_the_datastores(seen.given));
        }
    }
    if let Some(what) = unmeasured(all).filter(|_| !seen.options.force_unmeasured) {
        found.push(blockers::unmeasured(what));
    }
    if found.is_empty() {
        Ok(Record {
            old: seen.given,
            new: seen.given_new.into_iter().collect(),
            is_given: seen.given_new.is_some(),
            is_ended: false,
            round: None,
        })
    } else {
        found.dedup();
        Err(found)
    }
}

/// The servers that reject the given token. Nothing else is known of them.
pub(crate) fn rejecting(all: Servers<'_>) -> Vec<&str> {
    let is_rejecting = |server: &Server| server.role == Role::Full && server.accepts == Login::Another;
    let rejecting = all.by_name.iter().filter(|(_, server)| is_rejecting(server));
    rejecting.map(|(name, _)| name.as_str()).collect()
}

/// A server that is not whole, not up, or rejects the token.
pub(crate) fn one(all: Servers<'_>, name: &str, server: &Server, given: Fingerprint) -> Option<Blocker> {
    if server.role != Role::Full {
        Some(blockers::role(name, server.role))
    } else if server.accepts == Login::Another {
        Some(blockers::rejects(&[name]))
    } else if !server.is_up(all.cluster.datastore) {
        Some(blockers::not_up(name))
    } else {
        (server.accepts != Login::Accepts(given)).then(|| blockers::rejects(&[name]))
    }
}

/// What speaks against any change of a token of this cluster.
pub(crate) fn cluster(seen: Servers<'_>) -> Vec<Blocker> {
    let cluster = seen.cluster;
    let managed = cluster.manager.map(|manager| match manager {
        NodeManager::Harvester => blockers::harvester(),
        NodeManager::Rancher => blockers::provisioned(),
    });
    let version = cluster.can_change_token;
    let joining: Vec<&str> = seen.joining.iter().map(String::as_str).collect();
    // It is asked with the token.
    let rejects = |server: &Server| server.accepts == Login::Another;
    let encryption = match seen.encryption {
        Encryption::Unknown if seen.by_name.values().any(rejects) => None,
        Encryption::Safe => None,
        Encryption::Unsafe(reason) => Some(blockers::encryption(reason)),
        Encryption::Unknown => Some(blockers::encryption_unknown()),
    };
    let clocks = match seen.clocks {
        _ if seen.by_name.len() < 2 => None,
        Clocks::Close(_) => None,
        Clocks::Skewed => Some(blockers::clocks(true)),
        Clocks::Unknown => Some(blockers::clocks(false)),
    };
    let differ = cluster.datastore == Datastore::Etcd && seen.members != Members::Same;
    let found = [
        managed,
        (version != Some(true)).then(|| blockers::no_endpoint(version.is_some())),
        cluster.is_ca_rotating.then(blockers::ca_rotation),
        seen.by_name.is_empty().then(blockers::no_server),
        differ.then(blockers::members),
        (!joining.is_empty()).then(|| blockers::joining(&joining.join(", "))),
        encryption,
        clocks,
    ];
    found.into_iter().flatten().collect()
}

/// What differs from the clusters on which the procedure was measured.
pub(crate) fn unmeasured(seen: Servers<'_>) -> Option<String> {
    let count = seen.by_name.len();
    let what = [
        (seen.cluster.supervisor == SupervisorKind::Rke2).then(|| "RKE2".to_owned()),
        (seen.cluster.datastore == Datastore::External && count > 1)
            .then(|| "several servers with an external datastore".to_owned()),
        (![0, 1, 3].contains(&count)).then(|| format!("{count} servers")),
    ];
    let what: Vec<String> = what.into_iter().flatten().collect();
    (!what.is_empty()).then(|| what.join(", "))
}
