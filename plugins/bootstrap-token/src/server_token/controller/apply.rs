//! Applies single steps. What cannot be conditional is sent only if everything is still as it was observed.

use std::time::Duration;

use client::error::Error;
use engine::controller::{Controller as _, Failure, ServerCheck};
use engine::lock::Fence;
use futures::future::try_join_all;
use supervisor::snapshot;

use super::{Run, ServerTokenController};
use crate::server_token::rotation::observed::{Files, Observed, RoundResult};
use crate::server_token::rotation::step::{BackUp, Change, SnapshotKind, Step};
use crate::server_token::session::abstraction::{snapshot_name, taken};
use crate::server_token::session::backup::{self, Content};
use crate::server_token::session::tokens::fingerprint_of;
use crate::server_token::snapshots;

impl ServerTokenController<'_> {
    pub(super) async fn send(&self, step: &Step, run: &Run, fence: &Fence) -> Result<(), Failure> {
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        self.clean_up_once(&run.into()).await?;
        match step {
            Step::Create { .. } => {
                let value = run.record.new.last().copied();
                self.write_output(value.ok_or(Failure::Conflict)?)?;
            }
            Step::BackUp(change) => self.back_up(change, run, fence).await?,
            Step::Print(value) => self.print(*value)?,
            Step::Snapshot(kind) => self.take_snapshots(*kind, run, fence).await?,
            Step::Unpin { server } => return self.unpin(server, run, fence).await,
            Step::Round(round) => return self.send_round(round, run, fence).await,
            Step::Heal(heal) => return self.send_heal(heal, fence).await,
            Step::Restart(restart) => return self.restart(restart, run, fence).await,
            Step::Repin { node, value } => return self.repin(node, *value, run, fence).await,
            Step::DeleteConfigurationBackups => return self.delete_configuration_backups(&run.into(), fence).await,
            Step::DeleteSnapshots => self.delete_snapshots(run, fence).await?,
            Step::Forget => self.forget().await?,
        }
        // Servers and nodes are as they were.
        self.state().is_reusable = true;
        Ok(())
    }

    /// Observes once more. A conflict if anything that the step depends on has changed. `read`: the servers whose files it depends on,
    /// and which it does not check itself.
    pub(super) async fn unchanged(&self, run: &Run, read: &[&str]) -> Result<Observed, Failure> {
        let before = self.state().latest.as_ref().map(|latest| latest.seen.clone());
        let before = before.ok_or(Failure::Conflict)?;
        let mut now = Box::pin(self.observation(Some(run), Some(read))).await?;
        if self.options.nodes.is_by_pod() && !read.is_empty() {
            // Pods have taken their time. What servers have answered before is not from directly before the step.
            now = Box::pin(self.observation(Some(run), Some(&[]))).await?;
        }
        let is_same = now.servers == before.servers
            && now.joining == before.joining
            && now.members == before.members
            && now.encryption == before.encryption
            && now.backup == before.backup
            && now.round == before.round;
        if is_same { Ok(now) } else { Err(Failure::Conflict) }
    }

    async fn back_up(&self, BackUp { record, change }: &BackUp, run: &Run, fence: &Fence) -> Result<(), Failure> {
        let mut content = match self.backup_content() {
            Ok(content) => content,
            Err(_) => Content::new(record.clone()),
        };
        content.record.clone_from(record);
        if let Change::RoundBegins(_) = change {
            self.state().memory.round = RoundResult::Unknown;
        }
        self.save(run, &mut content, fence).await?;
        if let Change::RoundBegins(_) = change {
            self.state().memory.round = RoundResult::Recorded;
        }
        Ok(())
    }

    /// What the backup Secret holds.
    pub(super) fn backup_content(&self) -> Result<Content, Failure> {
        let own = self.own();
        let content = own.backup.as_ref().map(|backup| backup.content.clone());
        content.ok_or(Failure::Conflict)
    }

    /// Writes the backup Secret, if it is as it was read, and reads it back.
    pub(super) async fn save(&self, run: &Run, content: &mut Content, fence: &Fence) -> Result<(), Failure> {
        let (cluster, tokens) = (self.cluster_uid().await?, self.state().tokens.clone());
        *content = content.clone().sealed(tokens, cluster, run.id.to_string()).await?;
        let before = self.own().backup.clone();
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        let run = run.id.to_string();
        let written = backup::write(self.cluster.client(), &run, before.as_ref(), content).await?;
        self.own().backup = Some(written);
        Ok(())
    }

    /// Takes a snapshot on each server, where it needs one, and waits until the Kubernetes API shows which token it needs.
    async fn take_snapshots(&self, kind: SnapshotKind, run: &Run, fence: &Fence) -> Result<(), Failure> {
        let run = run.id.to_string();
        let name = snapshot_name(&run, kind);
        let known = self.own().snapshots.clone().unwrap_or_default();
        // A checking one shows what is there now. The others are kept, one on each server.
        let lacks = |server: &String| kind == SnapshotKind::Checking || taken(&run, kind, server, &known).is_empty();
        let servers: Vec<String> = self.server_names().into_iter().filter(lacks).collect();
        self.own().snapshots = None;
        let taken = try_join_all(servers.iter().map(|server| async {
            let (supervisor, password) = self.login(server).await?;
            if !fence.is_open() {
                return Err(Failure::LockLost);
            }
            let names = supervisor.save_snapshot(&password, &name).await;
            let names = names.map_err(|error| Failure::from(Error::from(error)))?;
            Ok((server.clone(), names))
        }));
        let taken: Vec<(String, Vec<String>)> = taken.await?;
        let kind = self.options.kind;
        let list = || self.read_api(|client| async move { Ok(snapshot::list(&client, kind).await?) });
        let (shown, files) = snapshots::shown(&taken, list).await?;
        let files_of = |hash| fingerprint_of(hash).map_or(Files::Unknown, Files::Hold);
        let shown = shown.into_iter().map(|(server, hash)| (server, files_of(hash)));
        self.state().memory.files.extend(shown);
        self.own().snapshots = Some(files);
        Ok(())
    }

    /// Deletes the snapshots of the run that were taken to check files.
    async fn delete_snapshots(&self, run: &Run, fence: &Fence) -> Result<(), Failure> {
        let run = run.id.to_string();
        let known = self.own().snapshots.take().unwrap_or_default();
        for server in self.server_names() {
            let files = taken(&run, SnapshotKind::Checking, &server, &known);
            let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
            if names.is_empty() {
                continue;
            }
            let (supervisor, password) = self.login(&server).await?;
            if !fence.is_open() {
                return Err(Failure::LockLost);
            }
            let deleted = supervisor.delete_snapshots(&password, &names).await;
            deleted.map_err(|error| Failure::from(Error::from(error)))?;
        }
        Ok(())
    }

    async fn forget(&self) -> Result<(), Failure> {
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
            Step::Round(_) | Step::Heal(_) | Step::Snapshot(_) | Step::DeleteSnapshots => {
                ServerCheck::NotChecked("supervisors have no dry run")
            }
            Step::Unpin { .. } | Step::Restart(_) | Step::Repin { .. } | Step::DeleteConfigurationBackups => {
                ServerCheck::NotChecked("nodes have no dry run")
            }
        }
    }

    /// How long a step may take. After that its writes count as without an answer.
    pub(super) fn longest_step(&self, step: &Step) -> Duration {
        let servers = self.server_names().len().try_into().unwrap_or(u32::MAX).max(1);
        let each = self.access.longest_write();
        match step {
            Step::Round(_) => each * servers * 2 + Duration::from_secs(30) + self.longest_observation(),
            Step::Heal(_) => each,
            Step::Snapshot(_) => each + snapshots::SHOWN + Duration::from_secs(15),
            Step::DeleteSnapshots => each * servers,
            Step::Restart(_) | Step::Unpin { .. } | Step::Repin { .. } => self.options.node_timeout() * 6,
            Step::DeleteConfigurationBackups => self.options.node_timeout() * (servers + 1),
            Step::Create { .. } | Step::BackUp(_) | Step::Print(_) | Step::Forget => engine::engine::LONGEST_WRITE,
        }
    }
}
