//! The state of a registration token and what uses it. Pure.

use std::fmt;

use client::secret::Fingerprint;
use k8s_openapi::jiff::Timestamp;
use rancher::TokenStorage;
use rancher::token::ValueError;
use serde::Serialize;

/// What is known of one registration token, or of an orphaned token Secret.
#[derive(Clone, Debug)]
pub(crate) struct TokenInputs {
    /// Where its value is kept.
    pub(crate) storage: TokenStorage,
    /// Its value.
    pub(crate) value: Result<Fingerprint, ValueError>,
    /// Storage `secret`: the previous value, which Rancher accepts too.
    pub(crate) previous: Option<Fingerprint>,
    /// When Rancher stops accepting the previous value.
    pub(crate) grace_ends_at: Option<Timestamp>,
    /// When Rancher rotates it by itself.
    pub(crate) expires_at: Option<Timestamp>,
    /// It is being deleted.
    pub(crate) deleting: bool,
    /// A Secret without a registration token.
    pub(crate) orphan: bool,
    /// Rancher deploys the agent with it.
    pub(crate) is_system: bool,
    /// A rotation has created it to keep a value valid.
    pub(crate) temporary: bool,
    /// It is the first of its cluster by name.
    pub(crate) is_first: bool,
    /// The rotation in progress changes it, or has created it.
    pub(crate) rotating: bool,
}

/// What is known of its cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterInputs {
    /// The cluster does not exist.
    pub(crate) gone: bool,
    /// Rancher provisions it, so that its nodes apply the first token by name.
    pub(crate) provisioned: bool,
    /// The token that the agent uses.
    pub(crate) agent: AgentToken,
    /// The value of `system`.
    pub(crate) system: Option<Fingerprint>,
    /// Storage `secret`: the token that Rancher applied last.
    pub(crate) applied: Option<Fingerprint>,
    /// Where the agent connects to, with `--probe`.
    pub(crate) address: Option<AgentAddress>,
}

/// Where an agent connects to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentAddress {
    /// The URL.
    pub(crate) url: String,
    /// Rancher's next redeploy sends it elsewhere, or makes it trust another CA.
    pub(crate) changes_at_next_redeploy: bool,
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = if self.changes_at_next_redeploy {
            " (changed in Rancher's settings, not pushed)"
        } else {
            ""
        };
        write!(f, "{}{change}", self.url)
    }
}

/// The token that the agent uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AgentToken {
    /// It is unknown.
    #[default]
    Unknown,
    /// There is no agent.
    NoAgent,
    /// Inferred: it should be this one.
    Inferred(Fingerprint),
    /// Rancher applied this one last, although it is not the value of `system`: the agent may use it or any other one.
    AppliedLast(Fingerprint),
    /// Reported by Rancher or by the agent.
    Reported(Fingerprint),
}

/// The state of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has one value.
    Current,
    /// The previous value is accepted too, until this time.
    Previous(Option<Timestamp>),
    /// Rancher has set a new value, and has not pushed it to the agent.
    NotPushed,
    /// Nothing should use it, or Rancher should have changed it, with the reason.
    Stale(&'static str),
    /// A Secret without a registration token. Rancher accepts it.
    Orphan,
    /// There is no registration token with this value, with the reason.
    Missing(&'static str),
    /// Rancher has not set a value yet.
    Pending,
    /// A rotation is in progress.
    Rotating,
    /// It is being deleted.
    Deleting,
    /// It has no value that Rancher could accept, with the reason.
    Broken(ValueError),
    /// The caller lacks permissions.
    Unknown,
}

impl State {
    /// As one word, for machine-readable output.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous(_) => "previous",
            Self::NotPushed => "rotated-not-pushed",
            Self::Stale(_) => "stale",
            Self::Orphan => "orphan",
            Self::Missing(_) => "missing",
            Self::Pending => "pending",
            Self::Rotating => "rotating",
            Self::Deleting => "deleting",
            Self::Broken(_) => "broken",
            Self::Unknown => "unknown",
        }
    }

    /// The reason; empty where the word is enough.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Previous(_) => "Rancher still accepts its previous value".to_owned(),
            Self::NotPushed => {
                "Rancher rotated it by itself, and pushes the new value when it reconciles the cluster next".to_owned()
            }
            Self::Stale(why) | Self::Missing(why) => (*why).to_owned(),
            Self::Orphan => "a Secret without a registration token, which Rancher accepts".to_owned(),
            Self::Pending => "Rancher has not set a value yet".to_owned(),
            Self::Rotating => "a rotation is in progress".to_owned(),
            Self::Broken(why) => why.to_string(),
            Self::Unknown => "no permission to read its Secret".to_owned(),
            Self::Current | Self::Deleting => String::new(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Previous(Some(until)) => write!(f, "previous until {}", seconds(*until)),
            Self::Unknown => f.write_str("<unknown>"),
            other => f.write_str(other.word()),
        }
    }
}

/// A time without fractions of a second.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// What uses a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Consumer {
    /// The agent uses it.
    Agent,
    /// The agent should use it, by inference.
    AgentInferred,
    /// The agent uses the previous value.
    AgentOnPrevious,
    /// Rancher deploys the agent with it.
    System,
    /// The nodes of a provisioned cluster apply it, as the first by name.
    FirstByName,
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::AgentInferred => "agent?",
            Self::AgentOnPrevious => "agent(previous)",
            Self::System => "system",
            Self::FirstByName => "first-by-name",
        })
    }
}

/// The state of a token: the first one that fits.
pub(crate) fn state(token: &TokenInputs, cluster: &ClusterInputs, now: Timestamp) -> State {
    match token.value {
        _ if token.rotating => State::Rotating,
        _ if token.orphan => State::Orphan,
        _ if token.deleting => State::Deleting,
        Err(ValueError::NotYet) => State::Pending,
        Err(why @ (ValueError::NoSecret | ValueError::Malformed)) => State::Broken(why),
        _ if cluster.gone => State::Stale("its cluster does not exist"),
        _ if token.temporary => State::Stale("left behind by a rotation that is not in progress any more"),
        _ if token.expires_at.is_some_and(|at| at < now) => {
            State::Stale("it has expired, and Rancher has not rotated it")
        }
        Ok(value) if token.is_system && cluster.applied.is_some_and(|applied| applied != value) => State::NotPushed,
        Ok(_) if token.previous.is_some() => State::Previous(token.grace_ends_at),
        Ok(_) => State::Current,
        Err(_) if token.grace_ends_at.is_some_and(|at| at > now) => State::Previous(token.grace_ends_at),
        Err(_) => State::Unknown,
    }
}

impl AgentToken {
    /// Its fingerprint.
    pub(crate) fn fingerprint(self) -> Option<Fingerprint> {
        match self {
            Self::Reported(token) | Self::Inferred(token) | Self::AppliedLast(token) => Some(token),
            Self::Unknown | Self::NoAgent => None,
        }
    }

    /// The agent as the consumer of its token.
    pub(crate) fn consumer(self) -> Consumer {
        if matches!(self, Self::Reported(_)) {
            Consumer::Agent
        } else {
            Consumer::AgentInferred
        }
    }
}

/// The state of a cluster without registration tokens, or of an agent whose token none of them has.
pub(crate) fn missing(agent: AgentToken) -> State {
    State::Missing(match agent {
        AgentToken::Reported(_) => {
            "no registration token of the cluster has the value that the agent uses: the agent is lost when it restarts"
        }
        AgentToken::AppliedLast(_) | AgentToken::Inferred(_) => {
            "no registration token of the cluster has the value that Rancher applied last: if the agent uses it, it is lost when it \
             restarts"
        }
        AgentToken::Unknown | AgentToken::NoAgent => "the cluster has no registration token",
    })
}

/// What uses a token. Empty: nothing, as far as is known. `None`: unknown.
pub(crate) fn consumers(token: &TokenInputs, cluster: &ClusterInputs) -> Option<Vec<Consumer>> {
    let mut consumers = Vec::new();
    let value = token.value.as_ref().ok().copied();
    match cluster.agent {
        AgentToken::Reported(agent) if Some(agent) == token.previous => consumers.push(Consumer::AgentOnPrevious),
        agent if value.is_some() && agent.fingerprint() == value => consumers.push(agent.consumer()),
        _ => {}
    }
    if token.is_system || (value.is_some() && value == cluster.system) {
        consumers.push(Consumer::System);
    }
    if cluster.provisioned && token.is_first && !token.orphan {
        consumers.push(Consumer::FirstByName);
    }
    let unknown = matches!(cluster.agent, AgentToken::Unknown | AgentToken::AppliedLast(_))
        || token.value == Err(ValueError::NoPermission);
    (!consumers.is_empty() || !unknown).then_some(consumers)
}

/// The agent's token, by the management cluster: with storage `secret` what Rancher applied last, which is a value of `system`
/// unless it was changed since; else what Rancher would deploy, else what it was imported with.
pub(crate) fn agent_token(
    applied: Option<Fingerprint>,
    system: Option<Fingerprint>,
    previous: Option<Fingerprint>,
    imported_with: Option<Fingerprint>,
) -> AgentToken {
    match (applied, system.or(imported_with)) {
        (Some(applied), _) if [system, previous].contains(&Some(applied)) => AgentToken::Reported(applied),
        (Some(applied), _) => AgentToken::AppliedLast(applied),
        (None, Some(likely)) => AgentToken::Inferred(likely),
        (None, None) => AgentToken::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOW: &str = "2026-11-22T09:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn print(name: &str) -> Fingerprint {
        Fingerprint::of(name)
    }

    fn token() -> TokenInputs {
        TokenInputs {
            storage: TokenStorage::Secret,
            value: Ok(print("N")),
            previous: None,
            grace_ends_at: None,
            expires_at: Some(at("2026-12-22T09:00:00Z")),
            deleting: false,
            orphan: false,
            is_system: false,
            temporary: false,
            is_first: false,
            rotating: false,
        }
    }

    fn system() -> TokenInputs {
        TokenInputs {
            is_system: true,
            ..token()
        }
    }

    fn cluster() -> ClusterInputs {
        ClusterInputs {
            applied: Some(print("N")),
            ..ClusterInputs::default()
        }
    }

    #[rstest]
    #[case::one_value(token(), cluster(), "current")]
    #[case::grace_period(
        TokenInputs { previous: Some(print("O")), grace_ends_at: Some(at("2026-11-29T09:00:00.5Z")), ..token() }, cluster(),
        "previous until 2026-11-29T09:00:00Z")]
    #[case::previous_without_an_end(TokenInputs { previous: Some(print("O")), ..token() }, cluster(), "previous")]
    #[case::rotated_by_rancher(
        TokenInputs { previous: Some(print("O")), ..system() }, ClusterInputs { applied: Some(print("O")), ..cluster() },
        "rotated-not-pushed")]
    #[case::only_system_is_pushed(
        token(), ClusterInputs { applied: Some(print("O")), ..cluster() }, "current")]
    #[case::no_hash(system(), ClusterInputs { applied: None, ..cluster() }, "current")]
    #[case::expired(TokenInputs { expires_at: Some(at("2026-11-22T08:59:59Z")), ..token() }, cluster(), "stale")]
    #[case::no_cluster(token(), ClusterInputs { gone: true, ..cluster() }, "stale")]
    #[case::temporary_left_behind(TokenInputs { temporary: true, ..token() }, cluster(), "stale")]
    #[case::temporary_of_a_rotation(TokenInputs { temporary: true, rotating: true, ..token() }, cluster(), "rotating")]
    #[case::a_rotation_takes_precedence(
        TokenInputs { rotating: true, previous: Some(print("O")), ..system() },
        ClusterInputs { applied: Some(print("O")), ..cluster() }, "rotating")]
    #[case::orphan(TokenInputs { orphan: true, ..token() }, cluster(), "orphan")]
    #[case::being_deleted(TokenInputs { deleting: true, ..token() }, cluster(), "deleting")]
    #[case::no_value_yet(TokenInputs { value: Err(ValueError::NotYet), ..token() }, cluster(), "pending")]
    #[case::no_secret(TokenInputs { value: Err(ValueError::NoSecret), ..token() }, cluster(), "broken")]
    #[case::malformed(TokenInputs { value: Err(ValueError::Malformed), ..token() }, cluster(), "broken")]
    #[case::no_permission(TokenInputs { value: Err(ValueError::NoPermission), ..token() }, cluster(), "<unknown>")]
    #[case::no_permission_and_a_grace_period(
        TokenInputs { value: Err(ValueError::NoPermission), grace_ends_at: Some(at("2026-11-22T12:00:00Z")), ..token() }, cluster(),
        "previous until 2026-11-22T12:00:00Z")]
    fn the_state_follows_from_the_inputs(
        #[case] token: TokenInputs,
        #[case] cluster: ClusterInputs,
        #[case] expected: &str,
    ) {
        assert_eq!(state(&token, &cluster, at(NOW)).to_string(), expected);
    }

    fn used_by(token: &TokenInputs, cluster: &ClusterInputs) -> String {
        let words = |users: Vec<Consumer>| users.iter().map(Consumer::to_string).collect::<Vec<_>>().join(",");
        consumers(token, cluster).map_or_else(|| "<unknown>".to_owned(), words)
    }

    #[rstest]
    #[case::reported(system(), AgentToken::Reported(print("N")), "agent,system")]
    #[case::inferred(system(), AgentToken::Inferred(print("N")), "agent?,system")]
    #[case::on_the_previous_value(
        TokenInputs { previous: Some(print("O")), ..system() }, AgentToken::Reported(print("O")), "agent(previous),system")]
    #[case::local(token(), AgentToken::NoAgent, "")]
    #[case::unreadable_value(
        TokenInputs { value: Err(ValueError::NoPermission), ..token() }, AgentToken::Reported(print("N")), "<unknown>")]
    #[case::agent_on_another_token(token(), AgentToken::Reported(print("X")), "")]
    #[case::rancher_applied_another_token(token(), AgentToken::AppliedLast(print("X")), "<unknown>")]
    #[case::rancher_applied_this_token(token(), AgentToken::AppliedLast(print("N")), "agent?")]
    #[case::unknown_agent(token(), AgentToken::Unknown, "<unknown>")]
    #[case::system_with_unreadable_value(
        TokenInputs { value: Err(ValueError::NoPermission), ..system() }, AgentToken::Unknown, "system")]
    fn the_consumers_follow_from_the_inputs(
        #[case] token: TokenInputs,
        #[case] agent: AgentToken,
        #[case] expected: &str,
    ) {
        assert_eq!(used_by(&token, &ClusterInputs { agent, ..cluster() }), expected);
    }

    #[test]
    fn nodes_of_a_provisioned_cluster_use_the_first_token_by_name() {
        let first = TokenInputs {
            is_first: true,
            ..token()
        };
        let cluster = ClusterInputs {
            provisioned: true,
            agent: AgentToken::NoAgent,
            ..cluster()
        };
        assert_eq!(used_by(&first, &cluster), "first-by-name");
        assert_eq!(used_by(&token(), &cluster), "");
        assert_eq!(
            used_by(
                &TokenInputs {
                    orphan: true,
                    ..first.clone()
                },
                &cluster
            ),
            ""
        );
        assert_eq!(
            used_by(
                &first,
                &ClusterInputs {
                    provisioned: false,
                    ..cluster
                }
            ),
            ""
        );
    }

    #[test]
    fn a_token_with_the_value_of_system_is_used_by_system() {
        let cluster = ClusterInputs {
            system: Some(print("N")),
            ..cluster()
        };
        assert_eq!(used_by(&token(), &cluster), "system");
    }

    #[test]
    fn the_applied_token_takes_precedence_over_inference() {
        let (a, b, c) = (Some(print("a")), Some(print("b")), Some(print("c")));
        assert_eq!(agent_token(a, a, None, c), AgentToken::Reported(print("a")));
        assert_eq!(agent_token(a, b, a, c), AgentToken::Reported(print("a")));
        assert_eq!(agent_token(None, b, None, c), AgentToken::Inferred(print("b")));
        assert_eq!(agent_token(None, None, None, c), AgentToken::Inferred(print("c")));
        assert_eq!(agent_token(None, None, None, None), AgentToken::Unknown);
    }

    #[test]
    fn an_applied_token_that_system_does_not_have_proves_nothing() {
        let (a, b, c) = (Some(print("a")), Some(print("b")), Some(print("c")));
        assert_eq!(agent_token(a, b, None, c), AgentToken::AppliedLast(print("a")));
        assert_eq!(agent_token(a, None, None, a), AgentToken::AppliedLast(print("a")));
    }
}
