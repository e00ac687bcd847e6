//! Reads what only the rotation of the agent token depends on: its backup Secret, and when files were written and servers started.

use engine::controller::Failure;

use super::abstraction::Inputs;
use super::{AgentTokenController, Run};
use crate::agent_token::rotation::observed::Observed;
use crate::agent_token::rotation::record::Record;
use crate::rights::AGENT_ROTATE;
use crate::server_token::session::RunFacts;
use crate::server_token::session::backup::{self, BackedUp as _, Backup};
use crate::server_token::session::observe::Context;

impl AgentTokenController<'_> {
    /// `checked`: see [`Context`].
    pub(super) async fn observation(&self, run: Option<&Run>, checked: Option<&[&str]>) -> Result<Observed, Failure> {
        let facts = run.map(RunFacts::from);
        let begun = self.begin_observation(facts.as_ref(), checked.is_some(), AGENT_ROTATE);
        let begun = begun.await?;
        if begun.reused.is_none() {
            let backup = self.backup(facts.as_ref()).await?;
            self.own().backup = backup;
        }
        let content = self.own().backup.as_ref().map(|backup| backup.content.clone());
        if let Some(content) = &content {
            self.own().is_old_unknown = content.record.old.is_none();
        }
        let removed = || content.iter().flat_map(|content| &content.removed);
        let starts = content.iter().flat_map(|content| content.starts.keys());
        let agents = content.iter().flat_map(|content| &content.record.agents);
        let context = Context {
            run: facts.as_ref(),
            checked,
            snapshots: &[],
            backup: None,
            of_run: removed()
                .map(|(name, _)| name)
                .chain(starts)
                .chain(agents)
                .cloned()
                .collect(),
            configuration_backups: removed()
                .filter(|(_, places)| !places.is_empty())
                .map(|(name, _)| name.clone())
                .collect(),
            all_known: self.tokens_known(
                run.map(|run| &run.record),
                content.as_ref().map(|content| &content.record),
            ),
        };
        let seen = self.end_observation(begun, &context).await?;
        let recorded = content.as_ref().map(|content| &content.starts);
        self.read_starts(&seen, recorded, checked.is_some()).await?;
        let passwd_times = self.state().node_states.passwd_times();
        let with_backups = self.state().node_states.backups();
        let starts = self.own().starts.known();
        let put = self.own().put.clone();
        let seen = Inputs {
            seen,
            purpose: self.asked.purpose,
            // Which of several is the old one is not known.
            given_old: match &self.asked.known[..] {
                [old] => Some(old.password().fingerprint()),
                _ => None,
            },
            passwd_times: &passwd_times,
            with_backups: with_backups.into_iter().map(|(name, _)| name).collect(),
            recorded_starts: recorded,
            starts: &starts,
            put,
            backup: content.as_ref().map(|content| &content.record),
        }
        .observed();
        self.own().seen = Some(seen.clone());
        Ok(seen)
    }

    /// The backup Secret of the run, after its tokens were opened.
    async fn backup(&self, run: Option<&RunFacts>) -> Result<Option<Backup<Record>>, Failure> {
        let Some(run) = run else { return Ok(None) };
        let found = self
            .read_api(|client| async move { backup::read::<Record>(&client, &run.id).await })
            .await?;
        let Some(backup) = found else { return Ok(None) };
        let record = &backup.content.record;
        let tokens = self.state().tokens.clone();
        let is_missing = record.sealed().iter().any(|(token, _)| !tokens.knows(*token));
        if record.server == self.given() && is_missing {
            let (content, cluster) = (backup.content.clone(), self.cluster_uid().await?);
            let opened = content.opened(tokens, cluster, run.id.clone()).await;
            self.state().tokens = opened.map_err(Failure::Permanent)?;
        }
        Ok(Some(backup))
    }

    /// Whether each server can be asked with every token of the run that is known at all.
    fn tokens_known(&self, claimed: Option<&Record>, recorded: Option<&Record>) -> bool {
        let state = self.state();
        let records = claimed.into_iter().chain(recorded);
        let mut tokens = records
            .flat_map(|record| [Some(record.server), record.old, record.new])
            .flatten();
        tokens.all(|token| state.tokens.knows(token))
    }
}
