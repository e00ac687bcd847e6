//! The rotation of the agent token of K3s and RKE2: setting the first one, changing it, and removing it.
//!
//! O is the token that servers accept as node before, N the one after, T the one that the run ends on. Where no agent token is
//! configured, servers accept the server token as node. So O is the server token where the first agent token is set, and N is where the
//! last one is removed. Nothing else tells these apart.
//!
//! What is true of a server:
//!
//! - The datastore has a copy of the file `cred/passwd` of one server, with the time of that file. A server that starts compares its own
//!   file. If the bytes differ and its own is newer, it does not start. If they differ and its own is older, it takes the datastore's.
//! - Then it reads the agent token in its configuration. Where that is not the one in its file, it writes the file, which is now the
//!   newest. It accepts this token as node until its next start.
//! - So after a start that *changes* what a server accepts as node, its next start is fatal. A PUT of the same server token on it saves its
//!   file into the datastore. Then the file of every other server is older: it takes the datastore's at its next start, and its
//!   configuration decides.
//!
//! Hence the rule: **a start that changed what a server accepts as node is followed by that PUT, before anything else is restarted.**
//! Where several servers have changed, the PUT goes to the one that has the newest file. After that, no server has a newer one. Nor may a
//! rollback come before it: it would restart that server.
//!
//! A PUT also saves the encryption files of its server. So what holds before a round of the server token holds before each of these.
//!
//! | question | answer |
//! |---|---|
//! | where does the server keep the token? | in its configuration and in `cred/passwd`, of which the datastore has a copy |
//! | where does the consumer read it? | agents in their configuration, when they join for the first time |
//! | who draws the new value? | the plugin, or the user |
//! | can two values be valid at once? | each server accepts one, and different servers may accept different ones |
//! | where is the old value until *retire*? | in the backup Secret, sealed with the server token, and mostly with the user |
//! | which call proves the new one? | a request as node to each server with it, and one with the old one, which it rejects |
//! | who else writes the same objects? | operators, configuration management, servers that restart by themselves |
//! | can each write be conditional? | the backup Secret and configurations; neither PUTs nor restarts |
//! | what can expire meanwhile? | nothing |
//!
//! | phase | what happens | can it be undone? |
//! |---|---|---|
//! | make | N is written to the file of the user, and O and N to the backup Secret | yes |
//! | place | T is written into the configuration of every server | yes |
//! | prove | one server at a time restarts, and saves its file into the datastore if it has changed | yes |
//! | retire | nothing: O is rejected | yes |
//! | confirm | the backups of configurations and the backup Secret are deleted | – |

mod blockers;
pub mod dangerous;
pub mod observed;
mod predict;
pub mod record;
mod stages;
pub mod step;
mod survey;

use engine::plan::{Named, Placeholder, Plan, Planned};
use engine::rotation::{Action, Blocker, Check, Credentials, Look, Next, Proof, Rotation, Timer};
use engine::run::{Draw, Run};

use self::observed::Observed;
use self::record::Record;
use self::stages::{Made, Placed, Proven, Retired};
use self::step::Step;
use crate::server_token::rotation::gates::{self, Gated, Servers};
use crate::server_token::rotation::{blockers as server_blockers, survey as server_survey};

/// The rotation of the agent token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgentToken;

impl Rotation for AgentToken {
    const KIND: &'static str = "agent-token";
    const FIELD_MANAGER: &'static str = crate::cluster::MANAGER;
    const QUIET_FLAG: &'static str = "pause-between";
    const CHECKS: &'static [Check] = &[server_blockers::UNMEASURED, Check::LOCK, Check::JOURNAL];

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

    /// A rollback restarts servers. So no run turns back by itself: where a wait takes too long, nothing more is changed.
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
        let are_known = seen.servers.values().all(|server| observed::as_node(server).is_some());
        gates::stale_timers(Self::servers(seen))
            .into_iter()
            .filter(|_| are_known)
            .collect()
    }

    /// From the backup Secret. Without it no configuration was changed, unless the run was about to end: then every server accepts T.
    fn recall(seen: &Observed, claimed: &Run<Self>) -> Option<Record> {
        if let Some(backup) = &seen.backup {
            return Some(backup.clone());
        }
        let mut claimed = claimed.clone();
        claimed.record.is_ended = false;
        let is_of_this = claimed.record.server == seen.given && stages::ended(seen, &claimed);
        is_of_this.then_some(claimed.record)
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

    fn action(record: &Record) -> Action {
        record.purpose().action()
    }

    /// Where the old one is not known, the server token stands for it: it is what agents without a token of their own use.
    fn credentials(record: &Record) -> Credentials {
        Credentials {
            old: record.old.unwrap_or(record.server),
            new: record.new,
        }
    }

    fn start(seen: &Observed, record: &Record) -> String {
        let count = seen.servers.len();
        let servers = if count == 1 {
            "1 server accepts".to_owned()
        } else {
            format!("{count} servers accept")
        };
        let old = match record.old {
            Some(old) if old == record.server => format!("the server token {old} from agents"),
            Some(old) if record.new == Some(record.server) => {
                format!(
                    "{old} from agents; without it, agents join with the server token {}",
                    record.server
                )
            }
            Some(old) => format!("{old} from agents"),
            None => "an unknown token from agents".to_owned(),
        };
        let unmeasured = server_survey::unmeasured(Self::servers(seen)).map(|what| format!(" (unmeasured: {what})"));
        format!("{servers} {old}{}", unmeasured.unwrap_or_default())
    }

    fn also_invalidated(plan: &Plan<Self>) -> Vec<String> {
        let restarts = |planned: &Planned<Step>| match planned {
            Planned::Step { step, .. } => matches!(step, Step::Restart(_)),
            Planned::Wait { .. } | Planned::Pause { .. } => false,
        };
        if !plan.steps.iter().any(restarts) {
            return Vec::new();
        }
        let other = plan.record.target(!plan.direction.is_rollback());
        let other = if plan.direction.is_rollback() {
            other.or(Some(Placeholder::fingerprint()))
        } else {
            other
        };
        let other = other.map_or_else(|| "the old token".to_owned(), |other| Named(&other).to_string());
        vec![format!(
            "{other}: the configuration of agents, user data, launch templates and join commands that contain it; agents that have \
             joined are not affected while their Node exists"
        )]
    }
}

impl Gated for AgentToken {
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
