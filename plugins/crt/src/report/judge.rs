//! What state a registration token is in and who uses it, as a pure function of what the management side tells.

use std::fmt;

use client::secret::Fingerprint;
use k8s_openapi::jiff::Timestamp;
use rancher::token_storage::TokenStorage;
use rancher::token::Unknown;
use serde::Serialize;

/// What is known of one registration token, or of a Secret that looks like a token's.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where its value is kept.
    pub era: TokenStorage,
    /// The value that it stands for.
    pub value: Result<Fingerprint, Unknown>,
    /// Era S: the value before, which is accepted as well.
    pub previous: Option<Fingerprint>,
    /// When the value before ends.
    pub grace_ends_at: Option<Timestamp>,
    /// When Rancher rotates it by itself.
    pub expires_at: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// A Secret without a registration token.
    pub orphan: bool,
    /// It is the one that Rancher deploys the agent with.
    pub is_system: bool,
    /// A rotation has made it, to keep a value accepted.
    pub bridge: bool,
    /// It is the first of its cluster by name.
    pub is_first: bool,
    /// A rotation under way is to change it, or has made it.
    pub rotating: bool,
}

/// What is known of the cluster that it belongs to.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// There is no such cluster.
    pub gone: bool,
    /// Rancher provisions it, so that its nodes apply the token that is the first by name.
    pub provisioned: bool,
    /// What the agent runs with.
    pub agent: Agent,
    /// What the token `system` holds.
    pub system: Option<Fingerprint>,
    /// Era S: the token that Rancher says it has applied.
    pub applied: Option<Fingerprint>,
    /// Where the agent connects to, if it was asked.
    pub address: Option<AgentAddress>,
}

/// Where an agent connects to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentAddress {
    /// The URL.
    pub url: String,
    /// Rancher's next redeploy sends it elsewhere, or has it trust another CA.
    pub changes_at_next_redeploy: bool,
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

/// What is known of the token that the agent runs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agent {
    /// Nothing.
    #[default]
    Unknown,
    /// There is no agent.
    Nobody,
    /// By inference: it should be this one.
    Inferred(Fingerprint),
    /// Rancher or the agent itself says so.
    Told(Fingerprint),
}

/// The state of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// One value, and it is accepted.
    Current,
    /// The value before is accepted too, until then.
    Previous(Option<Timestamp>),
    /// Rancher has given it a new value and has not pushed that to the agent.
    NotPushed,
    /// Nothing should use it any more, or Rancher should have changed it. The text says why.
    Stale(&'static str),
    /// A Secret without a registration token. Rancher accepts it.
    Orphan,
    /// Rancher has not given it a value yet.
    Pending,
    /// A rotation is under way.
    Rotating,
    /// It is being deleted.
    Deleting,
    /// It has no value that Rancher could accept. The text says why.
    Broken(Unknown),
    /// The caller may not see enough to tell.
    Unknown,
}

impl State {
    /// The state as one word, for machines.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous(_) => "previous",
            Self::NotPushed => "rotated-not-pushed",
            Self::Stale(_) => "stale",
            Self::Orphan => "orphan",
            Self::Pending => "pending",
            Self::Rotating => "rotating",
            Self::Deleting => "deleting",
            Self::Broken(_) => "broken",
            Self::Unknown => "unknown",
        }
    }

    /// Why, in a sentence; empty where the word says it all.
    pub fn reason(&self) -> String {
        match self {
            Self::Previous(_) => "the value before is accepted too".to_owned(),
            Self::NotPushed => {
                "Rancher has rotated it by itself and pushes the new value only at the next event of the cluster"
                    .to_owned()
            }
            Self::Stale(why) => (*why).to_owned(),
            Self::Orphan => "a Secret without a registration token, which Rancher accepts all the same".to_owned(),
            Self::Pending => "Rancher has not given it a value yet".to_owned(),
            Self::Rotating => "a rotation is under way".to_owned(),
            Self::Broken(why) => why.to_string(),
            Self::Unknown => "no right to read its Secret".to_owned(),
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

/// Somebody who uses a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum User {
    /// The agent runs with it.
    Agent,
    /// The agent should run with it, by inference.
    AgentInferred,
    /// The agent runs with the value before.
    AgentOnPrevious,
    /// Rancher deploys the agent with it.
    System,
    /// The nodes of a provisioned cluster apply it, because it is the first by name.
    FirstByName,
}

impl fmt::Display for User {
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

/// The state of a token. The first line that fits is it.
pub fn state(token: &Facts, around: &Surroundings, now: Timestamp) -> State {
    match token.value {
        _ if token.rotating => State::Rotating,
        _ if token.orphan => State::Orphan,
        _ if token.deleting => State::Deleting,
        Err(ValueError::NotYet) => State::Pending,
        Err(why @ (ValueError::NoSecret | ValueError::Malformed)) => State::Broken(why),
        _ if around.gone => State::Stale("its cluster is gone"),
        _ if token.bridge => State::Stale("left behind by a rotation; nothing is under way that needs it"),
        _ if token.expires_at.is_some_and(|at| at < now) => {
            State::Stale("it has expired, and Rancher has not rotated it")
        }
        Ok(value) if token.is_system && around.applied.is_some_and(|applied| applied != value) => State::NotPushed,
        Ok(_) if token.previous.is_some() => State::Previous(token.grace_ends_at),
        Ok(_) => State::Current,
        Err(_) if token.grace_ends_at.is_some_and(|at| at > now) => State::Previous(token.grace_ends_at),
        Err(_) => State::Unknown,
    }
}

/// Who uses a token; nobody, as far as can be seen, if it is empty. `None`: it cannot be told.
pub fn users(token: &Facts, around: &Surroundings) -> Option<Vec<User>> {
    let mut users = Vec::new();
    let value = token.value.as_ref().ok().copied();
    match around.agent {
        Agent::Told(agent) if Some(agent) == value => users.push(User::Agent),
        Agent::Told(agent) if Some(agent) == token.previous => users.push(User::AgentOnPrevious),
        Agent::Inferred(agent) if Some(agent) == value => users.push(User::AgentInferred),
        _ => {}
    }
    if token.is_system || (value.is_some() && value == around.system) {
        users.push(User::System);
    }
    if around.provisioned && token.is_first && !token.orphan {
        users.push(User::FirstByName);
    }
    let blind = around.agent == Agent::Unknown || token.value == Err(ValueError::NoPermission);
    (!users.is_empty() || !blind).then_some(users)
}

/// What the agent runs with, by what the management side tells: in era S what Rancher says it has applied, else what
/// Rancher would deploy, else what it was imported with.
pub fn agent(applied: Option<Fingerprint>, system: Option<Fingerprint>, imported_with: Option<Fingerprint>) -> Agent {
    match (applied, system.or(imported_with)) {
        (Some(applied), _) => Agent::Told(applied),
        (None, Some(likely)) => Agent::Inferred(likely),
        (None, None) => Agent::Unknown,
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

    fn token() -> Facts {
        Facts {
            era: TokenStorage::Secret,
            value: Ok(print("N")),
            previous: None,
            grace_ends_at: None,
            expires_at: Some(at("2026-12-22T09:00:00Z")),
            deleting: false,
            orphan: false,
            is_system: false,
            bridge: false,
            is_first: false,
            rotating: false,
        }
    }

    fn system() -> Facts {
        Facts {
            is_system: true,
            ..token()
        }
    }

    fn around() -> Surroundings {
        Surroundings {
            applied: Some(print("N")),
            ..Surroundings::default()
        }
    }

    #[rstest]
    #[case::one_value(token(), around(), "current")]
    #[case::grace_time(
        Facts { previous: Some(print("O")), grace_ends_at: Some(at("2026-11-29T09:00:00.5Z")), ..token() }, around(),
        "previous until 2026-11-29T09:00:00Z")]
    #[case::previous_without_an_end(Facts { previous: Some(print("O")), ..token() }, around(), "previous")]
    #[case::rotated_by_its_time_to_live(
        Facts { previous: Some(print("O")), ..system() }, Surroundings { applied: Some(print("O")), ..around() },
        "rotated-not-pushed")]
    #[case::another_token_than_system_is_never_pushed(
        token(), Surroundings { applied: Some(print("O")), ..around() }, "current")]
    #[case::no_hash_was_ever_written(system(), Surroundings { applied: None, ..around() }, "current")]
    #[case::expired(Facts { expires_at: Some(at("2026-11-22T08:59:59Z")), ..token() }, around(), "stale")]
    #[case::cluster_gone(token(), Surroundings { gone: true, ..around() }, "stale")]
    #[case::bridge_left_behind(Facts { bridge: true, ..token() }, around(), "stale")]
    #[case::bridge_of_a_rotation(Facts { bridge: true, rotating: true, ..token() }, around(), "rotating")]
    #[case::a_rotation_explains_all_else(
        Facts { rotating: true, previous: Some(print("O")), ..system() },
        Surroundings { applied: Some(print("O")), ..around() }, "rotating")]
    #[case::orphan(Facts { orphan: true, ..token() }, around(), "orphan")]
    #[case::being_deleted(Facts { deleting: true, ..token() }, around(), "deleting")]
    #[case::first_second(Facts { value: Err(ValueError::NotYet), ..token() }, around(), "pending")]
    #[case::secret_gone(Facts { value: Err(ValueError::NoSecret), ..token() }, around(), "broken")]
    #[case::nonsense(Facts { value: Err(ValueError::Malformed), ..token() }, around(), "broken")]
    #[case::no_right(Facts { value: Err(ValueError::NoPermission), ..token() }, around(), "<unknown>")]
    #[case::no_right_but_the_status_tells_of_a_grace_time(
        Facts { value: Err(ValueError::NoPermission), grace_ends_at: Some(at("2026-11-22T12:00:00Z")), ..token() }, around(),
        "previous until 2026-11-22T12:00:00Z")]
    fn each_state_has_its_facts(#[case] token: Facts, #[case] around: Surroundings, #[case] expected: &str) {
        assert_eq!(state(&token, &around, at(NOW)).to_string(), expected);
    }

    fn used_by(token: &Facts, around: &Surroundings) -> String {
        let words = |users: Vec<User>| users.iter().map(User::to_string).collect::<Vec<_>>().join(",");
        users(token, around).map_or_else(|| "<unknown>".to_owned(), words)
    }

    #[rstest]
    #[case::as_rancher_says(system(), Agent::Told(print("N")), "agent,system")]
    #[case::by_inference(system(), Agent::Inferred(print("N")), "agent?,system")]
    #[case::on_the_value_before(
        Facts { previous: Some(print("O")), ..system() }, Agent::Told(print("O")), "agent(previous),system")]
    #[case::local(token(), Agent::Nobody, "")]
    #[case::its_value_may_not_be_read(
        Facts { value: Err(ValueError::NoPermission), ..token() }, Agent::Told(print("N")), "<unknown>")]
    #[case::on_another(token(), Agent::Told(print("X")), "")]
    #[case::nothing_is_known(token(), Agent::Unknown, "<unknown>")]
    #[case::system_without_a_readable_value(
        Facts { value: Err(ValueError::NoPermission), ..system() }, Agent::Unknown, "system")]
    fn who_uses_it(#[case] token: Facts, #[case] agent: Agent, #[case] expected: &str) {
        assert_eq!(used_by(&token, &Surroundings { agent, ..around() }), expected);
    }

    #[test]
    fn the_nodes_of_a_provisioned_cluster_use_the_first_by_name() {
        let first = Facts {
            is_first: true,
            ..token()
        };
        let around = Surroundings {
            provisioned: true,
            agent: Agent::Nobody,
            ..around()
        };
        assert_eq!(used_by(&first, &around), "first-by-name");
        assert_eq!(used_by(&token(), &around), "");
        assert_eq!(
            used_by(
                &Facts {
                    orphan: true,
                    ..first.clone()
                },
                &around
            ),
            ""
        );
        assert_eq!(
            used_by(
                &first,
                &Surroundings {
                    provisioned: false,
                    ..around
                }
            ),
            ""
        );
    }

    #[test]
    fn a_token_with_the_value_of_system_is_used_as_system_is() {
        let around = Surroundings {
            system: Some(print("N")),
            ..around()
        };
        assert_eq!(used_by(&token(), &around), "system");
    }

    #[test]
    fn what_rancher_says_it_has_applied_comes_before_inference() {
        let (a, b, c) = (Some(print("a")), Some(print("b")), Some(print("c")));
        assert_eq!(agent(a, b, c), Agent::Told(print("a")));
        assert_eq!(agent(None, b, c), Agent::Inferred(print("b")));
        assert_eq!(agent(None, None, c), Agent::Inferred(print("c")));
        assert_eq!(agent(None, None, None), Agent::Unknown);
    }
}
