//! Applies single steps. What cannot be conditional is sent only if everything is still as it was observed.

use std::time::Duration;

use client::error::{Error, Kind};
use engine::controller::{Controller as _, Failure, ServerCheck};
use engine::lock::Fence;
use tokio::time::{Instant, sleep};

use super::{AgentTokenController, Run};
use crate::agent_token::rotation::dangerous::{Restart, Save};
use crate::agent_token::rotation::observed::{Observed, PutResult};
use crate::agent_token::rotation::record::Record;
use crate::agent_token::rotation::step::{BackUp, Change, Step};
use crate::server_token::put::{PutOutcome, put};
use crate::server_token::session::backup::{self, Content};

/// How long a server that is starting is asked to save its files.
const SAVING: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(300);

impl AgentTokenController<'_> {
    pub(super) async fn send(&self, step: &Step, run: &Run, fence: &Fence) -> Result<(), Failure> {
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        self.clean_up_once(&run.into()).await?;
        match step {
            Step::Create { .. } => self.write_output(run.record.new.ok_or(Failure::Conflict)?)?,
            Step::BackUp(change) => self.back_up(change, run, fence).await?,
            Step::Print(value) => self.print(*value)?,
            Step::Configure { server, value } => return self.configure(server, *value, run, fence).await,
            Step::ConfigureAgent { agent, value } => self.configure_agent(agent, *value, run, fence).await?,
            Step::Restart(restart) => return self.restart(restart, run, fence).await,
            Step::Save(save) => return self.save_files(save, run, fence).await,
            Step::DeleteConfigurationBackups => return self.delete_configuration_backups(&run.into(), fence).await,
            Step::Forget => self.forget(run).await?,
        }
        // Servers and nodes are as they were.
        self.state().is_reusable = true;
        Ok(())
    }

    /// Observes once more. A conflict if anything that the step depends on has changed. `read`: the servers whose files it depends on.
    /// Another server that has started since accepts another token, or its file is not newer.
    pub(super) async fn unchanged(&self, run: &Run, read: &[&str]) -> Result<Observed, Failure> {
        let before = self.own().seen.clone().ok_or(Failure::Conflict)?;
        let mut now = Box::pin(self.observation(Some(run), Some(read))).await?;
        if self.options.nodes.is_by_pod() && !read.is_empty() {
            // Pods have taken their time. What servers have answered before is not from directly before the step.
            now = Box::pin(self.observation(Some(run), Some(&[]))).await?;
        }
        let is_same = now.servers == before.servers
            && now.joining == before.joining
            && now.members == before.members
            && now.encryption == before.encryption
            && now.newest == before.newest
            && now.started == before.started
            && now.backup == before.backup
            && now.put == before.put;
        if is_same { Ok(now) } else { Err(Failure::Conflict) }
    }

    async fn restart(&self, restart: &Restart, run: &Run, fence: &Fence) -> Result<(), Failure> {
        let name = restart.server();
        self.unchanged(run, &[name]).await?;
        let by_hand = restart.by_hand().map(|value| self.instruction(name, value, run));
        self.session.restart(name, by_hand, &run.into(), fence).await
    }

    /// Until a server that is starting can carry it out, it answers 500, and nothing is changed: the value is the same.
    async fn save_files(&self, save: &Save, run: &Run, fence: &Fence) -> Result<(), Failure> {
        self.unchanged(run, &[save.server()]).await?;
        let value = self.state().tokens.require(save.login())?;
        let (supervisor, password) = self.login(save.server()).await?;
        {
            // Until the end is known, nothing is: the future may be dropped at any moment.
            let mut own = self.own();
            own.put = PutResult::Unknown;
            own.starts_at_put = own.starts.known();
            let mut state = self.state();
            state.memory.is_unanswered = true;
            state.node_states.remove(save.server());
        }
        let until = Instant::now() + SAVING;
        let (failure, is_unanswered) = loop {
            let (outcome, reason) = put(&supervisor, &password, &value, || fence.is_open()).await;
            let reason = || Failure::Transient(Error::new(Kind::Unavailable, reason.unwrap_or_default()));
            match outcome {
                PutOutcome::Accepted => break (None, false),
                PutOutcome::LockLost => break (Some(Failure::LockLost), false),
                PutOutcome::Unanswered => break (Some(reason()), true),
                PutOutcome::Failed | PutOutcome::Unsent if Instant::now() >= until => break (Some(reason()), false),
                PutOutcome::Failed | PutOutcome::Unsent => sleep(INTERVAL).await,
            }
        };
        self.state().memory.is_unanswered = is_unanswered;
        if let Some(failure) = failure {
            return Err(failure);
        }
        self.own().put = PutResult::Done(save.saved().clone());
        self.ui.status(format!(
            "Server {} has saved its files into the datastore.",
            save.server()
        ));
        Ok(())
    }

    async fn back_up(&self, BackUp { record, change }: &BackUp, run: &Run, fence: &Fence) -> Result<(), Failure> {
        let content = self.own().backup.as_ref().map(|backup| backup.content.clone());
        let mut content = content.unwrap_or_else(|| Content::new(record.clone()));
        content.record.clone_from(record);
        match change {
            Change::Token(_) if content.starts.is_empty() => content.starts = self.own().starts.known(),
            Change::Token(_) | Change::Agents(_) => {}
            Change::Saves(_) => self.own().put = PutResult::Unknown,
            Change::Saved(_) => content.starts = self.own().starts_at_put.clone(),
        }
        self.save(run, &mut content, fence).await?;
        if let Change::Saves(_) = change {
            self.own().put = PutResult::Recorded;
        }
        Ok(())
    }

    /// What the backup Secret holds.
    pub(super) fn backup_content(&self) -> Result<Content<Record>, Failure> {
        let own = self.own();
        let content = own.backup.as_ref().map(|backup| backup.content.clone());
        content.ok_or(Failure::Conflict)
    }

    /// Writes the backup Secret where that changes it, if it is as it was read, and reads it back.
    pub(super) async fn save(&self, run: &Run, content: &mut Content<Record>, fence: &Fence) -> Result<(), Failure> {
        let (cluster, tokens) = (self.cluster_uid().await?, self.state().tokens.clone());
        *content = content.clone().sealed(tokens, cluster, run.id.to_string()).await?;
        let before = self.own().backup.clone();
        if before.as_ref().is_some_and(|before| before.content == *content) {
            return Ok(());
        }
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        let written = backup::write(self.cluster.client(), &run.id.to_string(), before.as_ref(), content).await?;
        self.own().backup = Some(written);
        Ok(())
    }

    /// Only if every server still accepts what it has to.
    async fn forget(&self, run: &Run) -> Result<(), Failure> {
        self.unchanged(run, &[]).await?;
        let version = self.own().backup.as_ref().map(|backup| backup.version.clone());
        backup::delete(self.cluster.client(), &version.ok_or(Failure::Conflict)?).await?;
        self.own().backup = None;
        Ok(())
    }

    /// What `--dry-run=server` can check by itself.
    pub(super) async fn check(&self, step: &Step) -> ServerCheck {
        match step {
            Step::BackUp(BackUp {
                record,
                change: Change::Token(_),
            }) => backup::check(self.cluster.client(), record.clone()).await.into(),
            Step::BackUp(_) | Step::Forget => ServerCheck::NotChecked("it depends on the steps before it"),
            Step::Create { .. } | Step::Print(_) => ServerCheck::NotChecked("it is not sent to a server"),
            Step::Save(_) => ServerCheck::NotChecked("supervisors have no dry run"),
            Step::Configure { .. }
            | Step::ConfigureAgent { .. }
            | Step::Restart(_)
            | Step::DeleteConfigurationBackups => ServerCheck::NotChecked("nodes have no dry run"),
        }
    }

    /// How long a step may take. After that its writes count as without an answer.
    pub(super) fn longest_step(&self, step: &Step) -> Duration {
        let servers = self.server_names().len().try_into().unwrap_or(u32::MAX).max(1);
        match step {
            Step::Save(_) => SAVING + self.access.longest_write() + self.longest_observation() * 2,
            Step::Restart(_) | Step::Configure { .. } | Step::ConfigureAgent { .. } => {
                self.options.node_timeout() * 8 + self.longest_observation() * 2
            }
            Step::DeleteConfigurationBackups => self.options.node_timeout() * (servers + 1),
            Step::Forget => engine::engine::LONGEST_WRITE + self.longest_observation(),
            Step::Create { .. } | Step::BackUp(_) | Step::Print(_) => engine::engine::LONGEST_WRITE,
        }
    }
}
