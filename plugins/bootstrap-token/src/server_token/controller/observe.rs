//! Reads what only the rotation of the server token depends on: the backup Secret and the snapshots.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::controller::Failure;
use supervisor::snapshot::{self, SnapshotFile};

use super::{Run, ServerTokenController};
use crate::rights::SERVER_ROTATE;
use crate::server_token::rotation::observed::Observed;
use crate::server_token::session::RunFacts;
use crate::server_token::session::backup::{self, Backup, tokens_of};
use crate::server_token::session::observe::Context;

impl ServerTokenController<'_> {
    /// `checked`: see [`Context`].
    pub(super) async fn observation(&self, run: Option<&Run>, checked: Option<&[&str]>) -> Result<Observed, Failure> {
        let facts = run.map(RunFacts::from);
        let session = &self.session;
        let begun = session.begin_observation(facts.as_ref(), checked.is_some(), SERVER_ROTATE);
        let begun = begun.await?;
        if begun.reused.is_none() {
            let backup = self.backup(facts.as_ref().map(|run| run.id.as_str())).await?;
            self.own().backup = backup;
        }
        let backup = self.own().backup.clone();
        let snapshots = self.snapshots().await?;
        let removed = backup.iter().flat_map(|backup| backup.content.removed.keys().cloned());
        let context = Context {
            run: facts.as_ref(),
            checked,
            snapshots: &snapshots,
            backup: backup.as_ref().map(|backup| &backup.content.record),
            of_run: BTreeSet::new(),
            configuration_backups: removed.collect(),
            all_known: self.tokens_known(run, backup.as_ref()),
        };
        session.end_observation(begun, &context).await
    }

    /// The backup Secret of the run, after its tokens were opened.
    async fn backup(&self, run: Option<&str>) -> Result<Option<Backup>, Failure> {
        let Some(run) = run else { return Ok(None) };
        let found = self
            .read_api(|client| async move { backup::read(&client, run).await })
            .await?;
        let Some(backup) = found else { return Ok(None) };
        let tokens = self.state().tokens.clone();
        let is_missing = |token: Fingerprint| !tokens.knows(token);
        let given = self.given();
        let is_of_run = tokens_of(&backup.content.record).any(|token| token == given);
        if is_of_run && tokens_of(&backup.content.record).any(is_missing) {
            let opened = backup
                .content
                .clone()
                .opened(tokens, self.cluster_uid().await?, run.to_owned());
            self.state().tokens = opened.await.map_err(Failure::Permanent)?;
        }
        Ok(Some(backup))
    }

    /// Only this process takes and deletes the snapshots of its run.
    async fn snapshots(&self) -> Result<Vec<SnapshotFile>, Failure> {
        if let Some(read) = &self.own().snapshots {
            return Ok(read.clone());
        }
        let kind = self.options.kind;
        let read = self
            .read_api(|client| async move { Ok(snapshot::list(&client, kind).await?) })
            .await?;
        self.own().snapshots = Some(read.clone());
        Ok(read)
    }

    /// Whether each server can be asked with every token of the run.
    fn tokens_known(&self, run: Option<&Run>, backup: Option<&Backup>) -> bool {
        let state = self.state();
        let records = run.map(|run| &run.record).into_iter();
        let records = records.chain(backup.map(|backup| &backup.content.record));
        records.flat_map(tokens_of).all(|token| state.tokens.knows(token))
    }
}
