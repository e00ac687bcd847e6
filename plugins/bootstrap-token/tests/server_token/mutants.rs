//! Mutants of the rotation. The model checker must find each of them.
//!
//! Most make the real decision from a changed observation, as a rotation without that check would.

use engine::rotation::{Decision, Next, Timer, decide};
use kubectl_bootstrap_token::server_token::rotation::ServerToken;
use kubectl_bootstrap_token::server_token::rotation::observed::{
    Clocks, Configured, Encryption, Files, Login, Members, Observed, RoundResult,
};

use crate::environment::{Run, old};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A rollback begins its round before the round in progress is complete.
    TurnsHalfWay,
    /// A round ends at its first failure, or when a signal arrives.
    StopsAtFailure,
    /// A run that is resumed has another order of servers.
    AnotherOrder,
    /// Within a round, one PUT is sent twice.
    RepeatsOne,
    /// A server that answers 405 counts as ready.
    AcceptedIsReady,
    /// After the first PUT was answered with 500, the new token is sent once more.
    NewAfterRejection,
    /// After a later failure another token follows, although a server has not got the first one.
    AnotherAfterFailure,
    /// The encryption of Secrets is not looked at.
    IgnoresEncryption,
    /// A round begins while a server is down.
    IgnoresDown,
    /// A server is restarted while another one is.
    RestartsTwo,
    /// Servers are restarted before the round is complete.
    RestartsBeforeRound,
    /// Servers that are joining, and the number of members, are not looked at.
    IgnoresMembers,
    /// A process that takes over does not wait.
    DoesNotWait,
    /// A round of which this process knows nothing counts as complete.
    TrustsFormerRound,
    /// The journal counts instead of the backup Secret and of what the servers have in their files.
    TrustsJournal,
    /// The backup Secret is deleted before the servers have loaded the token.
    ForgetsEarly,
    /// A rollback puts the old token into configurations before the servers have it.
    RepinsEarly,
    /// After a round that was repeated, no fresh token follows.
    NoFreshToken,
    /// The server whose clock is ahead is not the last one.
    IgnoresClocks,
    /// Once a run has begun, it is not looked at whether the clocks of the servers differ.
    IgnoresSkew,
    /// The configuration is not read again before a restart.
    IgnoresConfiguration,
}

impl Mutant {
    /// The decision of this mutant, or of the real rotation.
    pub(crate) fn decide(mutant: Option<Self>, seen: &Observed, run: &Run) -> Decision<ServerToken> {
        let Some(mutant) = mutant else {
            return decide(seen, run);
        };
        let (mut changed, mut run_of_it) = (seen.clone(), run.clone());
        mutant.misread(&mut changed, &mut run_of_it);
        decide(&changed, &run_of_it)
    }

    /// The run that this mutant, or the real rotation, resumes from a journal.
    pub(crate) fn recall(mutant: Option<Self>, seen: &Observed, claimed: Run) -> Option<Run> {
        match mutant {
            Some(Self::TrustsJournal) => {
                let timers = [].into();
                Some(Run { timers, ..claimed })
            }
            _ => claimed.resumed(seen),
        }
    }

    fn misread(self, seen: &mut Observed, run: &mut Run) {
        let target = if run.direction.is_rollback() {
            Some(old())
        } else {
            run.record.new.last().copied()
        };
        let round = seen.backup.as_ref().and_then(|backup| backup.round.clone());
        let is_in_progress = round.as_ref().is_some_and(|round| !round.is_complete);
        match self {
            Self::TurnsHalfWay if run.direction.is_rollback() && is_in_progress => {
                if let Some(round) = round.filter(|round| round.value != old()) {
                    complete(seen);
                    hold(seen, round.value);
                }
            }
            Self::AcceptedIsReady if round.is_none() || is_in_progress => {
                for server in seen.servers.values_mut() {
                    server.is_ready |= server.accepts != Login::Unknown;
                }
            }
            Self::NewAfterRejection => {
                if let RoundResult::Rejected(_) = seen.round {
                    seen.round = RoundResult::Unknown;
                }
            }
            Self::AnotherAfterFailure if seen.round == RoundResult::Repeated => {
                if let Some(round) = round {
                    hold(seen, round.value);
                }
            }
            Self::IgnoresEncryption => seen.encryption = Encryption::Safe,
            Self::IgnoresDown if is_in_progress => {
                up(seen);
                if let Some(round) = round {
                    hold(seen, round.before);
                }
            }
            Self::RestartsTwo => {
                // Only where the decision is a wait for a server, which the caller cannot know: every server is said to be up.
                if let Next::Wait(_) = decide(seen, run).next {
                    up(seen);
                    run.timers.insert(Timer::InFlight, true);
                }
            }
            Self::RestartsBeforeRound if is_in_progress => {
                complete(seen);
                if let Some(round) = round {
                    hold(seen, round.value);
                }
            }
            Self::IgnoresMembers => {
                seen.members = Members::Same;
                seen.joining.clear();
            }
            Self::DoesNotWait => seen.may_be_in_flight = false,
            Self::TrustsFormerRound => {
                if let (true, RoundResult::Unknown, Some(round)) = (is_in_progress, &seen.round, round) {
                    complete(seen);
                    hold(seen, round.value);
                }
            }
            Self::TrustsJournal if run.record.round.is_some() && seen.backup.is_some() => {
                seen.backup = Some(run.record.clone());
                if let Some(round) = &run.record.round
                    && round.is_complete
                {
                    hold(seen, round.value);
                }
            }
            Self::ForgetsEarly => {
                if let Some(round) = round.filter(|round| round.is_complete && Some(round.value) == target) {
                    for server in seen.servers.values_mut().filter(|it| it.accepts != Login::Unknown) {
                        server.accepts = Login::Accepts(round.value);
                        server.as_node = Some(server.accepts);
                    }
                }
            }
            Self::RepinsEarly if run.direction.is_rollback() && round.is_some() => {
                complete(seen);
                if let Some(round) = seen.backup.as_mut().and_then(|backup| backup.round.as_mut()) {
                    round.value = old();
                }
                hold(seen, old());
                for server in seen.servers.values_mut().filter(|it| it.accepts != Login::Unknown) {
                    server.accepts = Login::Accepts(old());
                    server.as_node = Some(server.accepts);
                }
            }
            Self::NoFreshToken if seen.round == RoundResult::Repeated => seen.round = RoundResult::Complete,
            Self::IgnoresClocks => seen.clocks = Clocks::Close(None),
            Self::IgnoresSkew if seen.clocks == Clocks::Skewed => seen.clocks = Clocks::Close(None),
            Self::IgnoresConfiguration if round.is_some() => {
                for server in seen.servers.values_mut() {
                    server.configured = Configured::Nowhere;
                }
            }
            _ => {}
        }
    }
}

fn complete(seen: &mut Observed) {
    if let Some(round) = seen.backup.as_mut().and_then(|backup| backup.round.as_mut()) {
        round.is_complete = true;
    }
}

fn hold(seen: &mut Observed, value: client::secret::Fingerprint) {
    for server in seen.servers.values_mut() {
        server.files = Files::Hold(value);
    }
}

fn up(seen: &mut Observed) {
    let accepts = seen
        .servers
        .values()
        .map(|server| server.accepts)
        .find(|it| *it != Login::Unknown);
    for server in seen.servers.values_mut() {
        server.is_ready = true;
        server.is_restarting = false;
        if server.accepts == Login::Unknown {
            server.accepts = accepts.unwrap_or(Login::Accepts(old()));
            server.as_node = Some(server.accepts);
        }
    }
}
