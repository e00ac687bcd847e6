//! Whether servers accept a token, and in which role.

use client::error::Error;
use serde::Serialize;
use supervisor::{ProbeResult, Supervisor, UnknownReason};

use super::given_token::GivenToken;

/// As what a token is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Server,
    Agent,
    BootstrapToken,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::BootstrapToken => "bootstrap token",
        }
    }
}

/// Whether one server, or all servers, accept a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// In these roles, at least one.
    Accepted(Vec<Role>),
    /// In no role.
    Rejected,
    Unknown {
        reason: String,
        hints: Vec<String>,
    },
}

impl From<Error> for Acceptance {
    fn from(error: Error) -> Self {
        Self::Unknown {
            reason: error.message,
            hints: error.hints,
        }
    }
}

impl Acceptance {
    /// By the results of one server.
    fn of_roles(results: Vec<(Role, ProbeResult)>) -> Self {
        let accepted = results.iter().filter(|(_, result)| *result == ProbeResult::Accepted);
        let accepted: Vec<Role> = accepted.map(|(role, _)| *role).collect();
        if !accepted.is_empty() {
            return Self::Accepted(accepted);
        }
        let unknown = results.into_iter().find_map(|(_, result)| match result {
            ProbeResult::Unknown(reason) => Some(reason),
            ProbeResult::Accepted | ProbeResult::Rejected => None,
        });
        unknown.map_or(Self::Rejected, |reason| Self::unknown(reason.to_string()))
    }

    /// By the results of all servers. Accepted: by all of them, in the same role.
    pub(crate) fn of_servers(servers: &[&Self]) -> Self {
        let mut common: Option<Vec<Role>> = None;
        let mut unknown = None;
        for server in servers {
            match server {
                Self::Rejected => return Self::Rejected,
                Self::Unknown { .. } => unknown = unknown.or(Some(*server)),
                Self::Accepted(roles) => {
                    let before = common.take().unwrap_or_else(|| roles.clone());
                    common = Some(before.into_iter().filter(|role| roles.contains(role)).collect());
                }
            }
        }
        match (unknown, common) {
            (Some(unknown), _) => unknown.clone(),
            (None, None) => Self::unknown("there is no server to ask".to_owned()),
            (None, Some(roles)) if roles.is_empty() => Self::Rejected,
            (None, Some(roles)) => Self::Accepted(roles),
        }
    }

    fn unknown(reason: String) -> Self {
        Self::Unknown {
            reason,
            hints: Vec::new(),
        }
    }

    /// `yes`, `no` or `unknown`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "yes",
            Self::Rejected => "no",
            Self::Unknown { .. } => "unknown",
        }
    }

    pub(crate) fn roles(&self) -> &[Role] {
        match self {
            Self::Accepted(roles) => roles,
            Self::Rejected | Self::Unknown { .. } => &[],
        }
    }

    /// Why it is unknown.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Unknown { reason, .. } => Some(reason),
            Self::Accepted(_) | Self::Rejected => None,
        }
    }

    pub(crate) fn hints(&self) -> &[String] {
        match self {
            Self::Unknown { hints, .. } => hints,
            Self::Accepted(_) | Self::Rejected => &[],
        }
    }
}

/// Probes one server, one role after the other. `version`: that of the server, where it is known.
pub(crate) async fn probe(supervisor: &Supervisor, token: &GivenToken, version: Option<&str>) -> Acceptance {
    let mut results = Vec::new();
    for &role in token.roles() {
        let result = match version
            .filter(|_| role == Role::Server)
            .and_then(|version| unanswerable(supervisor, version))
        {
            Some(reason) => ProbeResult::Unknown(UnknownReason::NoResponse(reason)),
            None => supervisor.probe(token.credential(role)).await,
        };
        results.push((role, result));
    }
    Acceptance::of_roles(results)
}

/// Why this version cannot be probed with a server token. A server that does not know the path passes the request to its API server,
/// which rejects every server token.
fn unanswerable(supervisor: &Supervisor, version: &str) -> Option<String> {
    let answers = supervisor.kind().can_change_token(version) != Some(false);
    (!answers).then(|| format!("version {version} does not answer this request"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn unknown(reason: &str) -> Acceptance {
        Acceptance::unknown(reason.to_owned())
    }

    fn accepted(roles: &[Role]) -> Acceptance {
        Acceptance::Accepted(roles.to_vec())
    }

    #[rstest]
    #[case(ProbeResult::Accepted, ProbeResult::Accepted, accepted(&[Role::Server, Role::Agent]))]
    #[case(ProbeResult::Accepted, ProbeResult::Rejected, accepted(&[Role::Server]))]
    #[case(ProbeResult::Rejected, ProbeResult::Accepted, accepted(&[Role::Agent]))]
    #[case(ProbeResult::Accepted, ProbeResult::Unknown(UnknownReason::Starting), accepted(&[Role::Server]))]
    #[case(ProbeResult::Rejected, ProbeResult::Rejected, Acceptance::Rejected)]
    #[case::starting(
        ProbeResult::Rejected,
        ProbeResult::Unknown(UnknownReason::Starting),
        unknown("the server is starting")
    )]
    #[case::error(
        ProbeResult::Unknown(UnknownReason::Unexpected(500)),
        ProbeResult::Rejected,
        unknown("unexpected response 500")
    )]
    #[case::timeout(
        ProbeResult::Unknown(UnknownReason::NoResponse("no response within 10s".to_owned())),
        ProbeResult::Unknown(UnknownReason::Starting),
        unknown("no response within 10s")
    )]
    fn only_401_in_every_role_is_a_rejection(
        #[case] server: ProbeResult,
        #[case] agent: ProbeResult,
        #[case] expected: Acceptance,
    ) {
        assert_eq!(
            Acceptance::of_roles(vec![(Role::Server, server), (Role::Agent, agent)]),
            expected
        );
    }

    #[test]
    fn all_servers_have_to_accept_the_token_in_the_same_role() {
        let both = accepted(&[Role::Server, Role::Agent]);
        let (server, agent) = (accepted(&[Role::Server]), accepted(&[Role::Agent]));
        let (rejected, starting) = (Acceptance::Rejected, unknown("the server is starting"));
        let of = |servers: &[&Acceptance]| Acceptance::of_servers(servers);
        assert_eq!(of(&[&both, &both]), both);
        assert_eq!(of(&[&both, &agent]), agent);
        assert_eq!(of(&[&server, &agent]), rejected);
        assert_eq!(of(&[&both, &starting]), starting);
        assert_eq!(of(&[&starting, &rejected, &both]), rejected);
        assert_eq!(of(&[]).word(), "unknown");
    }
}
