//! Everything that speaks against a rotation, else what it starts from. Nothing is written, and no PUT is sent.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::rotation::Blocker;

use super::observed::{Configured, Observed, Output, Purpose, as_node};
use super::record::{Record, Saved};
use super::{AgentToken, blockers};
use crate::server_token::rotation::gates::Gated as _;
use crate::server_token::rotation::survey;

pub(super) fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
    let (all, options) = (AgentToken::servers(seen), &seen.options);
    let mut found = survey::cluster(all);
    let rejecting = survey::rejecting(all);
    if !rejecting.is_empty() {
        found.push(blockers::rejects(&rejecting));
    }
    for (name, server) in &seen.servers {
        if rejecting.contains(&name.as_str()) {
            continue;
        }
        found.extend(survey::one(all, name, server, seen.given));
        let is_known = matches!(server.configured, Configured::Nowhere | Configured::Token(Some(_)));
        if options.has_node_access && !is_known {
            found.push(blockers::configuration_unknown(name));
        }
    }
    if !options.has_node_access && seen.servers.len() > 1 && seen.started.is_none() {
        found.push(blockers::starts_unknown());
    }
    if let Some(what) = survey::unmeasured(all).filter(|_| !options.force_unmeasured) {
        found.push(blockers::unmeasured(what));
    }
    let new = match seen.purpose {
        Purpose::Remove => Some(seen.given),
        Purpose::Set | Purpose::Rotate => {
            if seen.output == Output::Nowhere {
                found.push(blockers::no_output());
            }
            if seen.given_new == Some(seen.given) {
                found.push(blockers::is_server_token());
            }
            seen.given_new
        }
    };
    // Compared with a wrong server token, what agents use has no meaning.
    let old = if rejecting.is_empty() { old(seen, new) } else { Ok(None) };
    match old {
        Ok(old) if found.is_empty() => Ok(Record {
            server: seen.given,
            old,
            new,
            saved: Saved { token: old, by: None },
            saving: BTreeSet::new(),
            agents: BTreeSet::new(),
            is_ended: false,
        }),
        Ok(_) => Err(found),
        Err(blocker) => {
            found.push(blocker);
            Err(found)
        }
    }
}

/// What the servers accept as node. A server may have the new token already: an operator has begun the change by hand.
fn old(seen: &Observed, new: Option<Fingerprint>) -> Result<Option<Fingerprint>, Blocker> {
    let mut accepted = BTreeSet::new();
    for (name, server) in &seen.servers {
        let value = as_node(server).ok_or_else(|| blockers::not_up(name))?;
        if value.is_none() && seen.given_old.is_some() {
            return Err(blockers::old_rejected(name));
        }
        accepted.insert(value);
    }
    accepted.retain(|value| value.is_none() || *value != new);
    let mut accepted = accepted.into_iter();
    let old = match (accepted.next(), accepted.next(), seen.purpose) {
        (None, _, Purpose::Remove) => return Err(blockers::none_exists()),
        (None, ..) => return Err(blockers::same_token()),
        (Some(old), None, _) => old,
        (Some(_), Some(_), _) => return Err(blockers::differ()),
    };
    match (seen.purpose, old == Some(seen.given)) {
        (Purpose::Set, false) => Err(blockers::exists()),
        (Purpose::Rotate | Purpose::Remove, true) => Err(blockers::none_exists()),
        (Purpose::Set, true) | (Purpose::Rotate | Purpose::Remove, false) => Ok(old),
    }
}
