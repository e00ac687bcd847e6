//! The rotation of the server token of K3s and RKE2.
//!
//! O is the old token, N the new one, T the one that the run ends on. A server accepts the token that it loaded at its start. It loads
//! the one in its own files (`server/token`, `server/cred/passwd`), unless one is configured, and starts only with that of the
//! datastore. A PUT changes the datastore and the files of the one server that it is sent to, and no login. So a *round* sends a PUT to
//! every server within a second, and then the servers are restarted one at a time.
//!
//! No server is lost, because outside a round the next start of every server finds the token of the datastore. A server compares the
//! times of files too: it does not start if its own are newer than those that the datastore has saved last, and differ. So each round
//! has the same order, which ends with the server whose clock is furthest ahead, and a round after which it is not certain which files are
//! the newest is followed by one with a token that no server has.
//!
//! | question | answer |
//! |---|---|
//! | where does the server keep the token? | the datastore is encrypted with it; each server has it in its files |
//! | where does the consumer read it? | servers in their files; nodes that join, wherever the operator has put it |
//! | who draws the new value? | the plugin, or the user |
//! | can two values be valid at once? | each server accepts one, and different servers may accept different ones |
//! | where is the old value until *retire*? | with the user, and in the backup Secret, sealed with the new one |
//! | which call proves the new one? | a request to each server with it, and one with the old one, which it rejects |
//! | who else writes the same objects? | `k3s token rotate`, configuration management, servers that restart by themselves |
//! | can each write be conditional? | the backup Secret; neither PUTs nor restarts |
//! | what can expire meanwhile? | nothing |
//!
//! | phase | what happens | can it be undone? |
//! |---|---|---|
//! | make | a snapshot of each server shows that O is the datastore's; N is written to the file of the user, and O and N to the backup Secret | yes |
//! | place | tokens in configurations are removed; one round with N | yes |
//! | prove | one server at a time restarts, and then accepts N and rejects O | yes |
//! | retire | nothing: O is rejected | yes |
//! | confirm | the backup Secret is deleted, and a last snapshot needs N | – |

pub(crate) mod blockers;
pub mod dangerous;
pub(crate) mod gates;
pub mod observed;
mod predict;
pub mod record;
mod stages;
pub mod step;
pub(crate) mod survey;

use engine::plan::{Placeholder, Plan, Planned};
use engine::rotation::{Blocker, Check, Credentials, Look, Next, Proof, Rotation, Timer};
use engine::run::{Draw, Run};

use self::gates::{Gated, Servers};
use self::observed::{Clocks, Configured, Observed};
use self::record::{Record, RoundRecord};
use self::stages::{Made, Placed, Proven, Retired};
use self::step::Step;

/// The rotation of the server token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerToken;

impl Rotation for ServerToken {
    const KIND: &'static str = "server-token";
    const FIELD_MANAGER: &'static str = crate::cluster::MANAGER;
    const QUIET_FLAG: &'static str = "pause-between";
    const CHECKS: &'static [Check] = &[blockers::UNPIN, blockers::UNMEASURED, Check::LOCK, Check::JOURNAL];

    type Observed = Observed;
    type Record = Record;
    type Step = Step;
    type Made = Made;
    type Placed = Placed;
    type Proven = Proven;
    type Retired = Retired;

    fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
        survey::survey(seen)
    }

    fn guard(look: Look<'_, Self>) -> Result<(), Next<Self>> {
        stages::guard(look)
    }

    fn make(look: Look<'_, Self>) -> Result<Made, Next<Self>> {
        stages::make(look)
    }

    fn place<'look>(look: Look<'look, Self>, made: &Proof<'look, Made>) -> Result<Placed, Next<Self>> {
        stages::place(look, made)
    }

    fn prove<'look>(look: Look<'look, Self>, placed: &Proof<'look, Placed>) -> Result<Proven, Next<Self>> {
        stages::prove(look, placed)
    }

    fn retire<'look>(_: Look<'look, Self>, proven: &Proof<'look, Proven>) -> Result<Retired, Next<Self>> {
        Ok(stages::retire(proven))
    }

    fn confirm<'look>(look: Look<'look, Self>, retired: &Proof<'look, Retired>) -> Result<(), Next<Self>> {
        stages::confirm(look, retired)
    }

    /// A rollback is a round too. So no run turns back by itself: where a wait takes too long, nothing more is changed.
    fn is_restorable(_: Look<'_, Self>) -> bool {
        false
    }

    /// Nothing is revoked that a quiet time could save.
    fn takes_away(_: Look<'_, Self>) -> bool {
        false
    }

    fn timers(seen: &Observed, _: &Run<Self>) -> Vec<Timer> {
        gates::timers(Self::servers(seen))
    }

    fn stale_timers(seen: &Observed, _: &Run<Self>) -> Vec<Timer> {
        gates::stale_timers(Self::servers(seen))
    }

    /// From the backup Secret. Without it, the run has not begun a round, or has ended, or the Secret was deleted. Where a round is
    /// claimed, [`stages::guard`] tells which, and refuses unless the servers and the snapshots of the run confirm that it has ended.
    fn recall(seen: &Observed, claimed: &Run<Self>) -> Option<Record> {
        let is_begun = claimed.record.round.is_some();
        let record = seen
            .backup
            .clone()
            .or_else(|| is_begun.then(|| claimed.record.clone()))?;
        Some(Record {
            is_ended: false,
            ..record
        })
    }

    fn intend(step: &Step, run: &Run<Self>, draw: &mut dyn Draw) -> Record {
        predict::intend(step, run, draw)
    }

    fn predict(seen: &mut Observed, run: &Run<Self>, step: &Step) {
        predict::predict(seen, run, step);
    }

    fn settle(seen: &mut Observed, run: &Run<Self>) {
        predict::settle(seen, run);
    }

    fn credentials(record: &Record) -> Credentials {
        Credentials {
            old: record.old,
            new: record.new.last().copied(),
        }
    }

    fn start(seen: &Observed, record: &Record) -> String {
        let count = seen.servers.len();
        let servers = if count == 1 {
            "1 server accepts".to_owned()
        } else {
            format!("{count} servers accept")
        };
        let unmeasured = survey::unmeasured(Self::servers(seen)).map(|what| format!(" (unmeasured: {what})"));
        format!("{servers} {}{}", record.old, unmeasured.unwrap_or_default())
    }

    fn also_invalidated(plan: &Plan<Self>) -> Vec<String> {
        let restarts = |planned: &Planned<Step>| {
            matches!(
                planned,
                Planned::Step {
                    step: Step::Restart(_),
                    ..
                }
            )
        };
        if !plan.steps.iter().any(restarts) {
            return Vec::new();
        }
        let old = if plan.direction.is_rollback() {
            plan.record.new.last().copied().unwrap_or_else(Placeholder::fingerprint)
        } else {
            plan.record.old
        };
        vec![format!(
            "{old}: the configuration of agents, user data, launch templates and join commands that contain it; nodes that have \
             joined are not affected while their Node exists. Older snapshots still need it: keep it until the last one is gone"
        )]
    }
}

impl Gated for ServerToken {
    fn servers(seen: &Observed) -> Servers<'_> {
        Servers {
            cluster: &seen.cluster,
            by_name: &seen.servers,
            members: seen.members,
            joining: &seen.joining,
            encryption: &seen.encryption,
            clocks: &seen.clocks,
            may_be_in_flight: seen.may_be_in_flight,
        }
    }
}

/// The order of a round: that of the last one, without servers that are gone; a server that has joined since comes first. The server
/// whose clock is furthest ahead is the last, in the first round and where it has joined: a file of another server would be older.
pub(crate) fn order(seen: &Observed, last: Option<&RoundRecord>) -> Vec<String> {
    let recorded = last.map_or(&[][..], |round| &round.order);
    let is_new = |name: &&String| !recorded.contains(name);
    let joined = seen.servers.keys().filter(is_new);
    let kept = recorded.iter().filter(|name| seen.servers.contains_key(*name));
    let mut order: Vec<String> = joined.chain(kept).cloned().collect();
    if let Clocks::Close(Some(ahead)) = &seen.clocks
        && !recorded.contains(ahead)
        && let Some(at) = order.iter().position(|name| name == ahead)
    {
        let ahead = order.remove(at);
        order.push(ahead);
    }
    order
}

/// The agents that have a token in their configuration: it is the old one after a rotation.
pub fn agents_with_token(seen: &Observed) -> impl Iterator<Item = &String> {
    let has_token = |configured: &Configured| matches!(configured, Configured::Token(_));
    seen.agents
        .iter()
        .filter(move |(_, it)| has_token(it))
        .map(|(name, _)| name)
}
