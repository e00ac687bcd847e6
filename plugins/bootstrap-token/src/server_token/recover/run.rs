//! The loop: observe, diagnose, one action, observe again.

use std::time::Duration;

use client::error::{Error, Kind};
use engine::controller::Failure;
use engine::rotation::Blocker;
use supervisor::node::NodeManager;
use tokio::time::{Instant, sleep};

use super::leftovers::in_words;
use super::report::{ServerTokenRecovery, describe, page};
use super::{RUN, Recoverer};
use crate::server_token::in_flight::in_flight;
use crate::server_token::node_way::NodeWay;
use crate::server_token::recovery::diagnosis::{Diagnosis, ServerState, diagnose};
use crate::server_token::recovery::facts::RecoveryFacts;
use crate::server_token::recovery::plan::{Recovery, next_action};
use crate::server_token::rotation::blockers;
use crate::server_token::session::OutputTarget;
use crate::server_token::session::nodes::instructions;

/// How often servers are observed while something is waited for. A pod takes longer than a connection.
const INTERVAL: Duration = Duration::from_millis(500);
const INTERVAL_BY_POD: Duration = Duration::from_secs(5);

/// What a run waits for, and since when.
struct Waiting {
    what: String,
    since: Instant,
}

impl Waiting {
    fn begins(what: String) -> Self {
        let since = Instant::now();
        Self { what, since }
    }
}

impl Recoverer<'_> {
    /// Diagnoses the servers, and unless that is all, mends them to the end. The document says more than the error.
    pub(crate) async fn run(mut self) -> (Option<ServerTokenRecovery>, Result<(), Error>) {
        let mut document = None;
        let ended = Box::pin(self.recover(&mut document)).await;
        let ended = ended.map_err(|error| {
            let hints = std::mem::take(&mut self.problems).into_iter();
            let error = hints.fold(error, |error, (what, problem)| error.hint(format!("{what}: {problem}")));
            self.ui.by_signal(error)
        });
        if let Some(lock) = self.lock.take()
            && let Err(lost) = lock.release(engine::lock::Release::KeepJournal).await
        {
            tracing::debug!(%lost, "the lock was not released");
        }
        (document, ended)
    }

    async fn recover(&mut self, document: &mut Option<ServerTokenRecovery>) -> Result<(), Error> {
        let (facts, diagnosis, next) = self.decide().await.map_err(in_words)?;
        let is_dry = self.options.dry_run;
        let outcome = match &next {
            Recovery::Refuse { .. } => "refused",
            Recovery::Done => "nothing-to-do",
            _ if is_dry => "planned",
            _ => "failed",
        };
        *document = Some(ServerTokenRecovery::new(outcome, &diagnosis, &next));
        self.say(page(&diagnosis).trim_end());
        match next {
            Recovery::Refuse { reason, hint } => return Err(Error::failed(reason).hint(hint)),
            Recovery::Done if !self.has_left_something(&facts) => {
                self.say("Every server accepts the same token, and starts with it. There is nothing to recover.");
                return Ok(());
            }
            next => self.say(&format!("Next: {}.", describe(&next))),
        }
        if is_dry {
            return Ok(());
        }
        if let Some(blocker) = self.owner() {
            return Err(Error::failed(blocker.reason).hint(blocker.hint));
        }
        if matches!(self.options.output, OutputTarget::Nowhere) {
            return Err(
                Error::usage("a new token can be needed, and nothing says where it goes")
                    .hint("add --write-token FILE or --print-token"),
            );
        }
        self.require_permissions(facts.has_snapshots).await?;
        self.ui.require_confirmation("", self.options.yes).await?;
        let _hold = self.ui.hold();
        let (facts, diagnosis) = self.mend(diagnosis).await?;
        *document = Some(ServerTokenRecovery::new("recovered", &diagnosis, &Recovery::Done));
        self.finish(&facts, &diagnosis).await
    }

    /// Another system owns the token, and would write its own again.
    fn owner(&self) -> Option<Blocker> {
        let managers: Vec<NodeManager> = self.nodes.iter().filter_map(|node| node.manager).collect();
        if managers.contains(&NodeManager::Harvester) {
            return Some(blockers::harvester());
        }
        managers.first().map(|_| blockers::provisioned())
    }

    fn say(&self, text: &str) {
        if self.options.is_data {
            self.ui.write_out(&format!("{text}\n"));
        } else {
            self.ui.status(text);
        }
    }

    async fn decide(&mut self) -> Result<(RecoveryFacts, Diagnosis, Recovery), Failure> {
        let interrupt = self.ui.interrupt().clone();
        // A pod may take a minute.
        let facts = match interrupt.run_until_cancelled(Box::pin(self.observe())).await {
            Some(facts) => facts?,
            None => return Err(Failure::Permanent(self.interrupted())),
        };
        let diagnosis = diagnose(&facts);
        let next = next_action(&facts, &diagnosis);
        Ok((facts, diagnosis, next))
    }

    async fn mend(&mut self, mut shown: Diagnosis) -> Result<(RecoveryFacts, Diagnosis), Error> {
        let mut waiting: Option<Waiting> = None;
        // What has failed, and is tried again.
        let mut tried: Option<String> = None;
        loop {
            let (facts, diagnosis, next) = match self.decide().await {
                // As a pod that was created while its node went away.
                Err(Failure::Transient(error)) => {
                    self.wait_out(&mut waiting, error).await?;
                    continue;
                }
                decided => decided.map_err(in_words)?,
            };
            if self.hold_lock().await? {
                // What was observed before may be another process's work.
                continue;
            }
            if self.ui.interrupt().is_cancelled() {
                return Err(self.interrupted());
            }
            self.show_changes(&shown, &diagnosis);
            shown.clone_from(&diagnosis);
            match next {
                Recovery::Act(ref action) if !self.has_lock_for(action) => {
                    self.wait(&mut waiting, "the lock to be renewed".to_owned()).await?;
                }
                Recovery::Act(ref action) => {
                    let what = describe(&next);
                    if tried.as_ref() != Some(&what) {
                        self.ui.status(format!("{}.", capitalized(&what)));
                    }
                    tried = Some(what);
                    match self.act(action, &facts).await {
                        // The API server has gone away since it was observed.
                        Err(error) if error.kind.is_transient() => self.wait_out(&mut waiting, error).await?,
                        acted => {
                            acted?;
                            (waiting, tried) = (None, None);
                        }
                    }
                }
                Recovery::ByHand {
                    reason,
                    instructions: by_hand,
                } => {
                    let is_new = waiting.as_ref().is_none_or(|waiting| waiting.what != reason);
                    if is_new {
                        self.ui
                            .status(format!("{}.\n{}", capitalized(&reason), instructions(&by_hand)));
                    }
                    if diagnosis.is_stuck {
                        let message = "the recovery needs an operator on a server";
                        return Err(Error::new(Kind::Pending, message).hint(self.again()));
                    }
                    self.wait(&mut waiting, reason).await?;
                }
                Recovery::Wait(what) if facts.may_be_in_flight => {
                    if waiting.as_ref().is_none_or(|waiting| waiting.what != what) {
                        let seconds = in_flight().as_secs();
                        self.ui.status(format!("Waiting up to {seconds} s for {what}."));
                    }
                    // This ends by itself, whatever the limit of the user is.
                    waiting = Some(Waiting::begins(what));
                    self.pause().await?;
                }
                Recovery::Wait(what) => {
                    if waiting.as_ref().is_none_or(|waiting| waiting.what != what) {
                        self.ui.status(format!("Waiting for {what}."));
                    }
                    self.wait(&mut waiting, what).await?;
                }
                Recovery::Refuse { reason, hint } => {
                    return Err(Error::failed(reason).hint(hint));
                }
                Recovery::Done => return Ok((facts, diagnosis)),
            }
        }
    }

    /// Waits for the next observation, within the limit for the same thing.
    async fn wait(&self, waiting: &mut Option<Waiting>, what: String) -> Result<(), Error> {
        if waiting.as_ref().is_none_or(|before| before.what != what) {
            *waiting = Some(Waiting::begins(what));
        }
        match waiting {
            Some(over) if over.since.elapsed() > self.limit() => {
                let limit = client::duration::format(self.limit());
                let message = format!("the recovery has waited {limit} for {}", over.what);
                Err(Error::new(Kind::Pending, message).hint(self.again()))
            }
            _ => self.pause().await,
        }
    }

    /// Waits until an error has passed, as long as for anything else.
    async fn wait_out(&self, waiting: &mut Option<Waiting>, error: Error) -> Result<(), Error> {
        tracing::debug!(%error, "tried again");
        let waited = self.wait(waiting, error.message.clone()).await;
        waited.map_err(|over| {
            if over.kind == Kind::Pending {
                error.hint(self.again())
            } else {
                over
            }
        })
    }

    /// Until the next observation.
    async fn pause(&self) -> Result<(), Error> {
        let interval = match self.options.nodes {
            NodeWay::Pod { .. } => INTERVAL_BY_POD,
            NodeWay::ByHand | NodeWay::Exec(_) => INTERVAL,
        };
        tokio::select! {
            () = sleep(interval) => Ok(()),
            () = self.ui.interrupt().cancelled() => Err(self.interrupted()),
        }
    }

    fn interrupted(&self) -> Error {
        Error::new(Kind::Interrupted, "interrupted before the recovery has ended").hint(self.again())
    }

    pub(super) fn again(&self) -> String {
        format!("`{}` resumes the recovery", self.options.commands.recover())
    }

    /// One line for each server whose state has changed.
    fn show_changes(&self, before: &Diagnosis, now: &Diagnosis) {
        for (name, finding) in &now.servers {
            let is_new = before
                .servers
                .get(name)
                .is_none_or(|before| before.state != finding.state);
            if is_new && finding.state != ServerState::Starting {
                self.ui.status(format!("{name}: {}.", finding.evidence));
            }
        }
    }

    /// Backups of files of a recovery that was killed.
    fn has_left_something(&self, facts: &RecoveryFacts) -> bool {
        let has_own = self.leftovers.as_ref().is_some_and(|leftovers| leftovers.own.is_some());
        let suffix = format!(".{RUN}.bak");
        let has_backup = |node: &node_access::NodeState| {
            !node.backups.is_empty() || node.passwd.iter().any(|passwd| passwd.file.file.ends_with(&suffix))
        };
        has_own
            || facts
                .servers
                .values()
                .filter_map(|server| server.node.as_ref())
                .any(has_backup)
    }
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}
