//! What a run says at its end, or where it stops.

use std::time::Duration;

use client::error::{Error, Kind};
use client::secret::Fingerprint;
use engine::controller::Summary;
use engine::lock::LEASE_DURATION;
use supervisor::snapshot::SnapshotFile;

use super::abstraction::ServerReading;
use super::observe::Latest;
use super::tokens::fingerprint_of;
use super::{OutputTarget, ServerTokenController};
use crate::server_token::rotation::agents_with_token;
use crate::server_token::rotation::observed::{Login, Observed};
use crate::server_token::rotation::record::Record;

impl ServerTokenController<'_> {
    /// Adds why servers are not ready, and what to mind until the end.
    pub(super) fn explained(&self, mut error: Error) -> Error {
        // The stages know the verb alone.
        let recover = format!("`{}`", self.options.commands.recover());
        for hint in &mut error.hints {
            *hint = hint.replace("`recover`", &recover);
        }
        if error.kind == Kind::Usage {
            return error;
        }
        let state = self.state();
        let Some(latest) = &state.latest else { return error };
        let record = latest.backup.as_ref().map(|backup| &backup.content.record);
        let record = record.filter(|record| record.round.is_some());
        // Another process has ended it since it was observed.
        if record.is_some() && !leaves_a_run(error.kind) {
            return error;
        }
        let reasons = problems(latest).into_iter().chain(state.reasons.iter().cloned());
        let error = reasons.fold(error, Error::hint);
        match record {
            Some(record) => {
                let hints = until_the_end(record, &logins(&latest.seen, latest.at.elapsed()));
                hints.into_iter().fold(error, Error::hint)
            }
            None => error,
        }
    }

    pub(super) fn not_proven(&self) -> Vec<String> {
        let options = self.options.of_rotation();
        if options.force_unpin && !options.has_node_access {
            vec![
                "Not proven: that no server has another token in its configuration (--force=unpin). One that has does not start again."
                    .to_owned(),
            ]
        } else {
            Vec::new()
        }
    }

    pub(super) fn summarized(&self) -> Summary {
        let seen = self.state().latest.as_ref().map(|latest| latest.seen.clone());
        let in_use = seen.as_ref().and_then(accepted_by_all);
        let mut sentences = Vec::new();
        let name = in_use.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        sentences.push(match &self.options.output {
            OutputTarget::File(path) => format!("The new token is {name}, in {}.", path.display()),
            OutputTarget::Print | OutputTarget::Nowhere => format!("The new token is {name}."),
        });
        let snapshots = self.state().snapshots.clone().unwrap_or_default();
        sentences.extend(older_snapshots(&snapshots, in_use));
        let agents: Vec<&str> = seen.iter().flat_map(agents_with_token).map(String::as_str).collect();
        if !agents.is_empty() {
            sentences.push(format!(
                "These agents still have the old token in their configuration, and need the new one before they join again: {}.",
                agents.join(", ")
            ));
        }
        Summary {
            in_use,
            message: sentences.join(" "),
        }
    }
}

/// Whether a command that ends with such an error may leave a rotation in progress.
fn leaves_a_run(kind: Kind) -> bool {
    matches!(kind, Kind::Pending | Kind::Held | Kind::Interrupted)
}

/// The token that every server accepts.
fn accepted_by_all(seen: &Observed) -> Option<Fingerprint> {
    let mut servers = seen.servers.values();
    let Login::Accepts(first) = servers.next()?.accepts else {
        return None;
    };
    servers
        .all(|server| server.accepts == Login::Accepts(first))
        .then_some(first)
}

/// Snapshots that need another token.
fn older_snapshots(snapshots: &[SnapshotFile], in_use: Option<Fingerprint>) -> Option<String> {
    let needs_another = |file: &&SnapshotFile| {
        let needed = file.token_hash.and_then(fingerprint_of);
        needed.is_some() && needed != in_use
    };
    let count = snapshots.iter().filter(needs_another).count();
    match count {
        0 => None,
        1 => Some(
            "One snapshot can be restored only with another token. Keep the old token until it is deleted.".to_owned(),
        ),
        _ => Some(format!(
            "{count} snapshots can be restored only with another token. Keep the old token until the last of them is deleted."
        )),
    }
}

/// Why servers are not ready, one sentence each.
fn problems(latest: &Latest) -> Vec<String> {
    let problem = |(name, reading): (&String, &ServerReading)| {
        let readiness = match &reading.readiness {
            Some(Err(reason)) => Some(reason),
            Some(Ok(())) | None => None,
        };
        let reason = reading.problem.as_ref().or(readiness)?;
        Some(format!("server {name}: {reason}"))
    };
    let of_servers = latest.readings.iter().filter_map(problem);
    let encryption = |(name, reading): (&String, &ServerReading)| match &reading.encryption {
        Some(Err(reason)) => Some(format!("server {name}: {reason}")),
        Some(Ok(_)) | None => None,
    };
    of_servers
        .chain(latest.readings.iter().filter_map(encryption))
        .collect()
}

/// What each server accepts by the last observation. Nothing once another process may have taken the run over since, and changed it.
fn logins(seen: &Observed, age: Duration) -> Vec<(&str, Login)> {
    let servers = seen.servers.iter().filter(|_| age < LEASE_DURATION);
    servers.map(|(name, server)| (name.as_str(), server.accepts)).collect()
}

/// What to mind where a round was begun and the rotation has not ended.
fn until_the_end(record: &Record, logins: &[(&str, Login)]) -> Vec<String> {
    let accepts = |value: Fingerprint| {
        let servers = logins.iter().filter(|(_, login)| *login == Login::Accepts(value));
        let names: Vec<&str> = servers.map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let old = accepts(record.old).map(|names| format!("the old token {} is still accepted by {names}", record.old));
    let new = record.new.iter().filter_map(|value| {
        let names = accepts(*value)?;
        Some(format!("the new token {value} is accepted by {names}"))
    });
    let rest = "until the rotation has ended, join no server, and pause autoscaling and configuration management";
    old.into_iter().chain(new).chain([rest.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(name: &str, token: Option<&str>) -> SnapshotFile {
        let value = token.map(|token| supervisor::TokenHash::of(&client::secret::Secret::new(token)));
        SnapshotFile {
            object: name.to_owned(),
            name: name.to_owned(),
            node: "s1".to_owned(),
            is_ready: true,
            created: None,
            location: String::new(),
            size: None,
            error: None,
            token_hash: value,
        }
    }

    #[test]
    fn the_servers_that_accept_a_token_are_named_only_while_that_is_known() {
        let [old, new] = ["old", "new"].map(Fingerprint::of);
        let record = Record {
            old,
            new: vec![new],
            is_given: false,
            is_ended: false,
            round: None,
        };
        let rest = "until the rotation has ended, join no server, and pause autoscaling and configuration management";
        let known = [
            ("s1", Login::Accepts(new)),
            ("s2", Login::Accepts(old)),
            ("s3", Login::Unknown),
        ];
        assert_eq!(
            until_the_end(&record, &known),
            [
                format!("the old token {old} is still accepted by s2"),
                format!("the new token {new} is accepted by s1"),
                rest.to_owned(),
            ]
        );
        assert_eq!(until_the_end(&record, &[]), [rest]);
    }

    /// Another process may have finished the rotation.
    #[test]
    fn an_old_observation_says_nothing_about_a_rotation_in_progress() {
        let seen = crate::server_token::controller::abstraction::tests::observed();
        assert_eq!(logins(&seen, Duration::ZERO).len(), 3);
        assert_eq!(logins(&seen, LEASE_DURATION), []);
        for (kind, expected) in [(Kind::Pending, true), (Kind::Interrupted, true), (Kind::Failed, false)] {
            assert_eq!(leaves_a_run(kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn snapshots_that_need_another_token_are_counted() {
        let new = Some(Fingerprint::of("new"));
        assert_eq!(
            older_snapshots(&[snapshot("a", Some("new")), snapshot("b", None)], new),
            None
        );
        let old = [
            snapshot("a", Some("new")),
            snapshot("b", Some("old")),
            snapshot("c", Some("older")),
        ];
        let text = older_snapshots(&old, new).unwrap();
        assert!(
            text.starts_with("2 snapshots can be restored only with another token."),
            "{text}"
        );
        assert!(older_snapshots(&old[..2], new).unwrap().starts_with("One snapshot"));
    }
}
