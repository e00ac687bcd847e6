//! Reads one server: what it accepts, its encryption, its clock, and whether it is ready.

use std::collections::BTreeMap;

use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::controller::Failure;
use futures::future::join_all;
use supervisor::node::ClusterNode;
use supervisor::{ClockReading, Credential, ProbeResult, Supervisor, UnknownReason};
use tokio::time::sleep;

use super::abstraction::{CLOCK_PAUSE, CLOCK_TRIES, ServerReading, compare_clocks, has_agent_token};
use super::{RotatedToken, Session};
use crate::server_token::connections::ServerTarget;
use crate::server_token::readiness::readiness;
use crate::server_token::rotation::observed::{Clocks, Login};

/// The values of tokens, with their fingerprints.
type Values = Vec<(Fingerprint, Secret)>;

/// The results of probes.
type Results = Vec<(Fingerprint, ProbeResult)>;

impl Session<'_> {
    pub(crate) async fn readings(
        &self,
        nodes: &[ClusterNode],
        targets: &[ServerTarget],
    ) -> BTreeMap<String, ServerReading> {
        let values: Values = {
            let state = self.state();
            let values = state.tokens.iter();
            values
                .map(|(fingerprint, value)| (fingerprint, value.password().clone()))
                .collect()
        };
        let of_server = match self.options.rotates {
            RotatedToken::Server => values.clone(),
            RotatedToken::Agent => vec![(self.given(), self.options.given.password().clone())],
        };
        let before = {
            let state = self.state();
            state
                .latest
                .as_ref()
                .map(|latest| latest.readings.clone())
                .unwrap_or_default()
        };
        let all = targets
            .iter()
            .map(|target| self.read_server(nodes, target, (&of_server, &values), before.get(&target.name)));
        let mut readings: BTreeMap<String, ServerReading> = join_all(all).await.into_iter().collect();
        let clocks: Option<BTreeMap<_, _>> = readings
            .iter()
            .map(|(name, read)| Some((name.clone(), read.clock?)))
            .collect();
        // Where a server does not answer, none is asked again.
        if let Some(mut clocks) = clocks {
            let ask = async |name: String| {
                let target = targets.iter().find(|target| target.name == name)?;
                self.supervisor(target).await.ok()?.clock().await.ok()
            };
            narrow_clocks(&mut clocks, ask).await;
            for (name, clock) in clocks {
                readings.entry(name).and_modify(|reading| reading.clock = Some(clock));
            }
        }
        readings
    }

    /// The supervisor of a server. Its CA was verified when it was first reached.
    pub(crate) async fn supervisor(&self, target: &ServerTarget) -> Result<Supervisor, Error> {
        let known = self.state().supervisors.get(&target.name).cloned();
        if let Some(supervisor) = known.filter(|known| Some(known.address()) == target.address()) {
            return Ok(supervisor);
        }
        let supervisor = target.connect(&self.access).await?;
        self.state().supervisors.insert(target.name.clone(), supervisor.clone());
        Ok(supervisor)
    }

    /// A server, and the password that it accepts by the last observation.
    pub(crate) async fn login(&self, name: &str) -> Result<(Supervisor, Secret), Failure> {
        let (target, password) = {
            let state = self.state();
            let latest = state.latest.as_ref().ok_or(Failure::Conflict)?;
            let target = latest.targets.iter().find(|target| target.name == name).cloned();
            let accepted = match latest.seen.servers.get(name).map(|server| server.accepts) {
                Some(Login::Accepts(accepted)) => Some(accepted),
                _ => latest.readings.get(name).and_then(accepted_as_server),
            };
            let accepted = accepted.ok_or(Failure::Conflict)?;
            (
                target.ok_or(Failure::Conflict)?,
                state.tokens.require(accepted)?.password().clone(),
            )
        };
        let supervisor = self.supervisor(&target).await.map_err(Failure::from)?;
        Ok((supervisor, password))
    }

    /// The first request that gets no answer is the last one: it is away, and each further request would take its time.
    async fn read_server(
        &self,
        nodes: &[ClusterNode],
        target: &ServerTarget,
        (values, of_node): (&Values, &Values),
        before: Option<&ServerReading>,
    ) -> (String, ServerReading) {
        let mut reading = ServerReading::default();
        let name = target.name.clone();
        let supervisor = match self.supervisor(target).await {
            Ok(supervisor) => supervisor,
            Err(error) => {
                reading.problem = Some(error.message);
                return (name, reading);
            }
        };
        reading.ca_hash = Some(supervisor.ca_hash().clone());
        let before = before.cloned().unwrap_or_default();
        // The encryption status is shown only to a server: where it is, the password is still accepted.
        let mut first = None;
        if let Some((value, password)) = accepted(&before.as_server, values) {
            match supervisor.encryption(password).await {
                Ok(status) => {
                    reading.encryption = Some(Ok(status));
                    first = Some((*value, ProbeResult::Accepted));
                }
                Err(error @ supervisor::Error::NoResponse { .. }) => {
                    reading.problem = Some(error.to_string());
                    return (name, reading);
                }
                Err(_) => {}
            }
        }
        let mut asked = Asked {
            supervisor: &supervisor,
            values,
            clock: None,
            problem: None,
        };
        reading.as_server = asked.all(Credential::Server, &before.as_server, first).await;
        let node = nodes.iter().find(|node| node.name == target.name);
        let has_agent_token =
            || node.is_some_and(|node| has_agent_token(node, self.state().node_states.get(&node.name)));
        let is_of_servers = self.options.rotates == RotatedToken::Server;
        asked.values = of_node;
        // Where agents have a token of their own, no token of a rotation of the server token is theirs.
        if asked.problem.is_none() && !(is_of_servers && has_agent_token()) {
            reading.as_node = asked.all(Credential::Node, &before.as_node, None).await;
            if !is_of_servers {
                asked.starting(Credential::Node, &mut reading.as_node).await;
            }
        }
        if asked.clock.is_none() && asked.problem.is_none() {
            asked.clock = supervisor.clock().await.ok();
        }
        (reading.clock, reading.problem) = (asked.clock, asked.problem);
        if reading.problem.is_some() {
            return (name, reading);
        }
        let password = accepted(&reading.as_server, values).map(|(_, password)| password);
        if let (Some(password), None) = (password, &reading.encryption) {
            let status = supervisor.encryption(password).await;
            reading.encryption = Some(status.map_err(|error| error.to_string()));
        }
        let is_control_plane = node.is_some_and(|node| node.is_control_plane);
        let api = target.address().filter(|_| is_control_plane);
        let accepts_nodes = accepted(&reading.as_node, of_node).is_some();
        reading.readiness = Some(match password {
            None => Err("it accepts no known token".to_owned()),
            Some(password) => readiness(&self.cluster.connection, &supervisor, api, password, accepts_nodes).await,
        });
        (name, reading)
    }
}

/// Asks servers for their clocks again, at another part of the second each time, until these can be compared or one does not answer.
pub(crate) async fn narrow_clocks<F>(clocks: &mut BTreeMap<String, ClockReading>, ask: impl Fn(String) -> F) -> Clocks
where
    F: Future<Output = Option<ClockReading>>,
{
    for _ in 1..CLOCK_TRIES {
        let compared = compare_clocks(&clocks.iter().map(|(name, clock)| (name, *clock)).collect::<Vec<_>>());
        if compared != Clocks::Unknown {
            return compared;
        }
        sleep(CLOCK_PAUSE).await;
        let later = join_all(clocks.keys().map(|name| ask(name.clone()))).await;
        if later.contains(&None) {
            return Clocks::Unknown;
        }
        for (clock, later) in clocks.values_mut().zip(later.into_iter().flatten()) {
            *clock = clock.narrowed(later);
        }
    }
    compare_clocks(&clocks.iter().map(|(name, clock)| (name, *clock)).collect::<Vec<_>>())
}

/// The requests of one user to one server.
struct Asked<'a> {
    supervisor: &'a Supervisor,
    values: &'a Values,
    /// By all answers so far.
    clock: Option<ClockReading>,
    /// Why there was no answer.
    problem: Option<String>,
}

impl<'a> Asked<'a> {
    /// The result of each token. A user has one password, which changes only at a start: while what the server accepted is still
    /// accepted, it still rejects what it rejected. `first`: what is known of the token that it accepted.
    async fn all(
        &mut self,
        user: fn(&'a Secret) -> Credential<'a>,
        before: &Results,
        first: Option<(Fingerprint, ProbeResult)>,
    ) -> Results {
        let values = self.values;
        let known = match (first, accepted(before, values)) {
            (Some(known), _) => Some(known),
            (None, Some((value, password))) => Some((*value, self.once(user(password)).await)),
            (None, None) => None,
        };
        let is_same = known
            .as_ref()
            .is_some_and(|(_, result)| *result == ProbeResult::Accepted);
        let mut results = Results::new();
        for (value, password) in values {
            let result = match &known {
                Some((known, result)) if known == value => result.clone(),
                _ if is_same && before.contains(&(*value, ProbeResult::Rejected)) => ProbeResult::Rejected,
                _ if self.problem.is_some() => return results,
                _ => self.once(user(password)).await,
            };
            results.push((*value, result));
        }
        results
    }

    /// A server that is starting rejects a wrong token as soon as it checks logins, and answers 503 to the right one until it is ready.
    /// Before it checks them, it answers 503 to every token. So the only one that was not rejected is asked again: what it answers now, it
    /// answers after it has rejected another one.
    async fn starting(&mut self, user: fn(&'a Secret) -> Credential<'a>, results: &mut Results) {
        let mut unknown = results.iter().filter(|(_, result)| *result != ProbeResult::Rejected);
        if let (Some((value, ProbeResult::Unknown(_))), None) = (unknown.next().cloned(), unknown.next())
            && results.len() > 1
            && self.problem.is_none()
            && let Some((_, password)) = self.values.iter().find(|(other, _)| *other == value)
        {
            results.retain(|(other, _)| *other != value);
            results.push((value, self.once(user(password)).await));
        }
    }

    async fn once(&mut self, credential: Credential<'_>) -> ProbeResult {
        let (result, clock) = self.supervisor.timed_probe(credential).await;
        self.clock = match (self.clock, clock) {
            (Some(before), Some(later)) => Some(before.narrowed(later)),
            (before, later) => later.or(before),
        };
        if let ProbeResult::Unknown(UnknownReason::NoResponse(reason)) = &result {
            self.problem = Some(reason.clone());
        }
        result
    }
}

/// The token that was accepted.
fn accepted<'v>(results: &Results, values: &'v Values) -> Option<&'v (Fingerprint, Secret)> {
    let is_accepted = |(value, _): &&(Fingerprint, Secret)| results.contains(&(*value, ProbeResult::Accepted));
    values.iter().find(is_accepted)
}

pub(crate) fn accepted_as_server(reading: &ServerReading) -> Option<Fingerprint> {
    let mut accepted = reading
        .as_server
        .iter()
        .filter(|(_, result)| *result == ProbeResult::Accepted);
    accepted.next().map(|(value, _)| *value)
}
