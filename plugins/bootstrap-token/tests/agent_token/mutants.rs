//! Mutants of the rotation. The model checker must find each of them.
//!
//! They make the real decision from a changed observation, as a rotation without that check would.

use engine::rotation::{Decision, Next, Timer, decide};
use kubectl_bootstrap_token::agent_token::rotation::AgentToken;
use kubectl_bootstrap_token::agent_token::rotation::observed::{
    Configured, Encryption, Login, Members, Observed, PutResult,
};
use kubectl_bootstrap_token::agent_token::rotation::record::Saved;
use kubectl_bootstrap_token::agent_token::rotation::step::Step;

use crate::environment::{Run, server_token};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// No PUT follows a start that has changed what a server accepts.
    NoPut,
    /// The PUT is sent once every server has loaded the token.
    RestartsBeforePut,
    /// A rollback restores the configuration, and sends no PUT.
    RollsBackByConfiguration,
    /// The login of the PUT is the agent token.
    WrongLogin,
    /// The PUT is sent to another server than the one with the newest file.
    AnotherOrder,
    /// By hand, it is not looked at which servers have started since the last PUT.
    IgnoresStarts,
    /// By hand, a server that accepts another token than the datastore has counts as one that has started.
    PutsOnOlder,
    /// A server is restarted before every configuration has the token.
    RestartsBeforeConfigured,
    /// What the record says counts instead of what a server accepts.
    TrustsRecord,
    /// A server is restarted while another one is.
    RestartsTwo,
    /// The encryption of Secrets is not looked at.
    IgnoresEncryption,
    /// A PUT is sent while another server is down.
    IgnoresDown,
    /// Servers that are joining, and the number of members, are not looked at.
    IgnoresMembers,
    /// A process that takes over does not wait.
    DoesNotWait,
    /// The backup Secret is deleted before the servers have loaded the token.
    ForgetsEarly,
    /// With `--agents`, an agent with any other token gets the new one.
    WritesEveryAgent,
    /// A rollback writes the old token into every agent that has the new one.
    RestoresEveryAgent,
}

impl Mutant {
    /// The decision of this mutant, or of the real rotation.
    pub(crate) fn decide(mutant: Option<Self>, seen: &Observed, run: &Run) -> Decision<AgentToken> {
        let Some(mutant) = mutant else {
            return decide(seen, run);
        };
        let (mut changed, mut run_of_it) = (seen.clone(), run.clone());
        mutant.misread(&mut changed, &mut run_of_it);
        decide(&changed, &run_of_it)
    }

    fn misread(self, seen: &mut Observed, run: &mut Run) {
        let is_rollback = run.direction.is_rollback();
        let target = if is_rollback { run.record.old } else { run.record.new };
        let Some(target) = target else { return };
        let is_put = |next| matches!(next, Next::Step(intent) if matches!(intent.step, Step::Save(_)));
        let accepts = |value| Some(Login::Accepts(value));
        match self {
            Self::NoPut => pretend_saved(seen),
            Self::RestartsBeforePut if seen.servers.values().any(|it| it.as_node != accepts(target)) => {
                pretend_saved(seen);
            }
            Self::RollsBackByConfiguration if is_rollback => pretend_saved(seen),
            Self::WrongLogin if is_put(decide(seen, run).next) => {
                seen.given = target;
                run.record.server = target;
                if let Some(backup) = &mut seen.backup {
                    backup.server = target;
                }
            }
            Self::AnotherOrder if is_put(decide(seen, run).next) => {
                if let Some(newest) = &mut seen.newest {
                    let mut others = seen.servers.keys().filter(|name| !newest.contains(*name));
                    *newest = others.next().cloned().into_iter().collect();
                }
            }
            Self::IgnoresStarts => {
                if let Some(started) = &mut seen.started {
                    started.clear();
                }
            }
            Self::PutsOnOlder => {
                let all = seen.servers.keys().cloned().collect();
                seen.started = seen.started.as_ref().map(|_| all);
            }
            Self::RestartsBeforeConfigured => {
                for server in seen.servers.values_mut() {
                    let is_none = target == server_token();
                    server.configured = if is_none {
                        Configured::Nowhere
                    } else {
                        Configured::Token(Some(target))
                    };
                }
            }
            Self::TrustsRecord => {
                if let Some(token) = seen.backup.as_ref().and_then(|it| it.saved.token) {
                    believe(seen, token);
                }
            }
            Self::ForgetsEarly if seen.backup.as_ref().is_some_and(|it| it.saved.token == Some(target)) => {
                believe(seen, target);
            }
            // Only where the decision is a wait, which the caller cannot know: every server is said to be up.
            Self::RestartsTwo | Self::IgnoresDown => {
                if let Next::Wait(_) = decide(seen, run).next {
                    let before = (seen.clone(), run.clone());
                    up(seen);
                    run.timers.insert(Timer::InFlight, true);
                    if is_put(decide(seen, run).next) != (self == Self::IgnoresDown) {
                        (*seen, *run) = before;
                    }
                }
            }
            Self::IgnoresEncryption => seen.encryption = Encryption::Safe,
            Self::IgnoresMembers => {
                seen.members = Members::Same;
                seen.joining.clear();
            }
            Self::WritesEveryAgent if !is_rollback => {
                let old = Configured::Token(run.record.old);
                for agent in seen.agents.values_mut() {
                    if agent.configured != Configured::Token(Some(target)) {
                        agent.configured = old;
                    }
                }
            }
            Self::RestoresEveryAgent if is_rollback => {
                let agents: Vec<String> = seen.agents.keys().cloned().collect();
                if let Some(backup) = &mut seen.backup {
                    backup.agents.extend(agents);
                }
            }
            Self::DoesNotWait => seen.may_be_in_flight = false,
            _ => {}
        }
    }
}

/// As if the newest file were the datastore's.
fn pretend_saved(seen: &mut Observed) {
    let newest = seen.newest.as_ref().and_then(|newest| newest.first()).cloned();
    let Some((by, backup)) = newest.zip(seen.backup.as_mut()) else {
        return;
    };
    let token = match seen.servers[&by].as_node {
        Some(Login::Accepts(token)) => Some(token),
        _ => backup.saved.token,
    };
    let saved = Saved { token, by: Some(by) };
    backup.saved = saved.clone();
    backup.saving.clear();
    seen.put = PutResult::Done(saved);
}

fn believe(seen: &mut Observed, token: client::secret::Fingerprint) {
    for server in seen.servers.values_mut() {
        if server.as_node != Some(Login::Unknown) {
            server.as_node = Some(Login::Accepts(token));
        }
    }
}

fn up(seen: &mut Observed) {
    let saved = seen.backup.as_ref().and_then(|it| it.saved.token);
    for server in seen.servers.values_mut() {
        server.is_ready = true;
        server.is_restarting = false;
        if server.accepts == Login::Unknown {
            server.accepts = Login::Accepts(server_token());
            server.as_node = saved.map(Login::Accepts);
        }
    }
}
