//! A round and a heal: the PUTs of a token.

use std::time::Duration;

use client::error::{Error, Kind};
use client::secret::Secret;
use engine::controller::Failure;
use engine::lock::Fence;
use supervisor::{Credential, ProbeResult, Supervisor, TokenValue};
use tokio::time::Instant;

use super::{Run, ServerTokenController};
use crate::server_token::put::{PutOutcome, put};
use crate::server_token::rotation::dangerous::{Heal, Round};
use crate::server_token::rotation::observed::{Clocks, Files, RoundResult};

/// The PUTs of one round so far.
#[derive(Debug, Default)]
struct Progress {
    /// A server has carried one out.
    is_accepted: bool,
    /// One got no answer.
    is_unanswered: bool,
    /// The servers that have not carried it out.
    failed: Vec<String>,
    /// Why they have not.
    reasons: Vec<String>,
}

impl ServerTokenController<'_> {
    /// Sends the token to each server, with what it accepts now. Only a lost lock ends it once a server has carried it out.
    pub(super) async fn send_round(&self, round: &Round, run: &Run, fence: &Fence) -> Result<(), Failure> {
        let names: Vec<&str> = round.servers().iter().map(String::as_str).collect();
        let seen = self.unchanged(run, &names).await?;
        // The next observation says why nothing is sent.
        if !round.is_repeated() && seen.servers.len() > 1 && !matches!(seen.clocks, Clocks::Close(_)) {
            return Err(Failure::Conflict);
        }
        let value = self.state().tokens.require(round.value())?;
        let mut servers = Vec::new();
        for name in round.servers() {
            servers.push((name.as_str(), self.login(name).await?));
        }
        let (before, _) = self.before_put();
        let began = Instant::now();
        let mut progress = Progress::default();
        for (name, (supervisor, password)) in &servers {
            let outcome = self.put(supervisor, password, &value, fence, &mut progress).await;
            match outcome {
                PutOutcome::Accepted => progress.is_accepted = true,
                PutOutcome::LockLost => return Err(Failure::LockLost),
                PutOutcome::Failed if !progress.is_accepted => {
                    return self.end_round(RoundResult::Rejected((*name).to_owned()), &progress);
                }
                PutOutcome::Failed | PutOutcome::Unanswered | PutOutcome::Unsent => {
                    progress.is_unanswered |= outcome == PutOutcome::Unanswered;
                    progress.failed.push((*name).to_owned());
                }
            }
        }
        let window = began.elapsed();
        if progress.failed.is_empty() {
            self.show_window(&value, servers.len(), window);
            let is_check = self.note_repeated(round) && before == RoundResult::Complete;
            let is_ordered = !round.is_repeated() || is_check;
            let result = if is_ordered {
                RoundResult::Complete
            } else {
                RoundResult::Repeated
            };
            self.end_round(result, &progress)?;
            // No login has changed, and the nodes are read again.
            self.state().is_reusable = true;
            return Ok(());
        }
        for name in progress.failed.clone() {
            let (supervisor, password) = self.login_now(&name, round).await?;
            match self.put(&supervisor, &password, &value, fence, &mut progress).await {
                PutOutcome::Accepted => progress.is_accepted = true,
                PutOutcome::LockLost => return Err(Failure::LockLost),
                outcome => progress.is_unanswered |= outcome == PutOutcome::Unanswered,
            }
        }
        self.end_round(
            if progress.is_accepted {
                RoundResult::Repeated
            } else {
                RoundResult::Unknown
            },
            &progress,
        )
    }

    /// Sends the former token to the server that has rejected the first PUT.
    pub(super) async fn send_heal(&self, heal: &Heal, fence: &Fence) -> Result<(), Failure> {
        let value = self.state().tokens.require(heal.value())?;
        let (supervisor, password) = self.login(heal.server()).await?;
        let rejected = RoundResult::Rejected(heal.server().to_owned());
        let (_, was_unanswered) = self.before_put();
        let mut progress = Progress::default();
        let outcome = self.put(&supervisor, &password, &value, fence, &mut progress).await;
        progress.is_unanswered = outcome == PutOutcome::Unanswered;
        let result = match outcome {
            PutOutcome::Accepted => RoundResult::Healed,
            PutOutcome::Failed => RoundResult::NotHealed(heal.server().to_owned()),
            // A heal may be repeated.
            PutOutcome::Unanswered | PutOutcome::Unsent => rejected,
            PutOutcome::LockLost => return Err(Failure::LockLost),
        };
        let ended = self.end_round(result, &progress);
        // Nothing is waited for before a heal: what was in flight still is.
        self.state().memory.is_unanswered |= was_unanswered;
        ended
    }

    /// Until the end is known, nothing is: the future may be dropped at any moment. Returns how the round before ended, and whether a
    /// write was in flight.
    fn before_put(&self) -> (RoundResult, bool) {
        let mut state = self.state();
        let was_unanswered = state.memory.is_unanswered;
        state.memory.is_unanswered = true;
        state.memory.forget_files();
        state.node_states.clear();
        (std::mem::take(&mut state.memory.round), was_unanswered)
    }

    fn end_round(&self, result: RoundResult, progress: &Progress) -> Result<(), Failure> {
        let mut state = self.state();
        state.memory.round = result;
        state.memory.is_unanswered = progress.is_unanswered;
        drop(state);
        self.own().reasons.clone_from(&progress.reasons);
        let reasons = progress.reasons.join("; ");
        if progress.is_unanswered {
            return Err(Failure::Transient(Error::new(Kind::Unavailable, reasons)));
        }
        if !reasons.is_empty() {
            tracing::debug!(%reasons, "the round was disturbed");
        }
        Ok(())
    }

    /// Without snapshots, that a server carries it out once more shows that it has it, and changes no file. Returns whether that is so.
    fn note_repeated(&self, round: &Round) -> bool {
        let mut state = self.state();
        let has_snapshots = state.latest.as_ref().is_some_and(|latest| latest.seen.has_snapshots());
        if !round.is_repeated() || has_snapshots {
            return false;
        }
        let files = round
            .servers()
            .iter()
            .map(|name| (name.clone(), Files::Hold(round.value())));
        state.memory.files = files.collect();
        true
    }

    fn show_window(&self, value: &TokenValue, servers: usize, window: Duration) {
        let token = value.password().fingerprint();
        let seconds = window.as_secs_f64();
        self.ui.status(match servers {
            1 => format!("The server accepted {token} after {seconds:.2} s."),
            _ => format!("All {servers} servers accepted {token} within {seconds:.2} s."),
        });
    }

    async fn put(
        &self,
        supervisor: &Supervisor,
        password: &Secret,
        value: &TokenValue,
        fence: &Fence,
        progress: &mut Progress,
    ) -> PutOutcome {
        let (outcome, reason) = put(supervisor, password, value, || fence.is_open()).await;
        progress.reasons.extend(reason);
        outcome
    }

    /// The same, asked again: it may have restarted since, with the token of the round.
    async fn login_now(&self, name: &str, round: &Round) -> Result<(Supervisor, Secret), Failure> {
        let (supervisor, before) = self.login(name).await?;
        let new = self.state().tokens.require(round.value())?.password().clone();
        let is_new = supervisor.probe(Credential::Server(&new)).await == ProbeResult::Accepted;
        Ok((supervisor, if is_new { new } else { before }))
    }
}
