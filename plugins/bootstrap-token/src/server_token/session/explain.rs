//! What both rotations of K3s' tokens say where they stop, and at their end.

use std::time::Duration;

use client::error::Kind;
use client::secret::Fingerprint;
use engine::lock::LEASE_DURATION;
use supervisor::ProbeResult;

use super::abstraction::ServerReading;
use super::observe::Latest;
use crate::server_token::rotation::observed::{Login, Observed, Server};

/// As what a server is asked.
pub(crate) type LoginOf = fn(&Server) -> Login;

/// Whether a command that ends with such an error may leave a rotation in progress.
pub(crate) fn leaves_a_run(kind: Kind) -> bool {
    matches!(kind, Kind::Pending | Kind::Held | Kind::Interrupted)
}

/// Why servers are not ready, one sentence each.
pub(crate) fn problems(latest: &Latest) -> Vec<String> {
    let problem = |(name, reading): (&String, &ServerReading)| {
        // One that rejects every token is reported as such.
        let is_closed = reading
            .as_server
            .iter()
            .all(|(_, result)| *result == ProbeResult::Rejected);
        let readiness = match &reading.readiness {
            Some(Err(reason)) if !is_closed => Some(reason),
            _ => None,
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

/// The token that every server accepts.
pub(crate) fn accepted_by_all(seen: &Observed, of: LoginOf) -> Option<Fingerprint> {
    let mut servers = seen.servers.values();
    let Login::Accepts(first) = of(servers.next()?) else {
        return None;
    };
    servers
        .all(|server| of(server) == Login::Accepts(first))
        .then_some(first)
}

/// What each server accepts by the last observation. Nothing once another process may have taken the run over since, and changed it.
pub(crate) fn logins(seen: &Observed, age: Duration, of: LoginOf) -> Vec<(&str, Login)> {
    let servers = seen.servers.iter().filter(|_| age < LEASE_DURATION);
    servers.map(|(name, server)| (name.as_str(), of(server))).collect()
}

/// What to mind where servers may have changed and the rotation has not ended.
pub(crate) fn until_the_end(old: Option<Fingerprint>, new: &[Fingerprint], logins: &[(&str, Login)]) -> Vec<String> {
    let accepts = |value: Fingerprint| {
        let servers = logins.iter().filter(|(_, login)| *login == Login::Accepts(value));
        let names: Vec<&str> = servers.map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let old = old.and_then(|old| Some(format!("the old token {old} is still accepted by {}", accepts(old)?)));
    let new = new.iter().filter_map(|value| {
        let names = accepts(*value)?;
        Some(format!("the new token {value} is accepted by {names}"))
    });
    let rest = "until the rotation has ended, join no server, and pause autoscaling and configuration management";
    old.into_iter().chain(new).chain([rest.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_that_accept_a_token_are_named_only_while_that_is_known() {
        let [old, new] = ["old", "new"].map(Fingerprint::of);
        let rest = "until the rotation has ended, join no server, and pause autoscaling and configuration management";
        let known = [
            ("s1", Login::Accepts(new)),
            ("s2", Login::Accepts(old)),
            ("s3", Login::Unknown),
        ];
        assert_eq!(
            until_the_end(Some(old), &[new], &known),
            [
                format!("the old token {old} is still accepted by s2"),
                format!("the new token {new} is accepted by s1"),
                rest.to_owned(),
            ]
        );
        assert_eq!(until_the_end(Some(old), &[new], &[]), [rest]);
    }

    /// Another process may have finished the rotation.
    #[test]
    fn an_old_observation_says_nothing_about_a_rotation_in_progress() {
        let seen = super::super::abstraction::tests::observed();
        assert_eq!(logins(&seen, Duration::ZERO, |server| server.accepts).len(), 3);
        assert_eq!(logins(&seen, LEASE_DURATION, |server| server.accepts), []);
        for (kind, expected) in [(Kind::Pending, true), (Kind::Interrupted, true), (Kind::Failed, false)] {
            assert_eq!(leaves_a_run(kind), expected, "{kind:?}");
        }
    }
}
