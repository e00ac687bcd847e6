//! The end of a recovery: what it has left on nodes and in the cluster is removed, and the user learns what a rotation in progress needs.

use client::error::Error;
use engine::lock::Release;
use node_access::{NodeState, ServiceAction};
use supervisor::TokenHash;

use super::leftovers::in_words;
use super::{RUN, Recoverer};
use crate::server_token::recovery::diagnosis::Diagnosis;
use crate::server_token::recovery::facts::RecoveryFacts;
use crate::server_token::session::OutputTarget;
use crate::server_token::session::backup::{self, tokens_of};

impl Recoverer<'_> {
    pub(super) async fn finish(&mut self, facts: &RecoveryFacts, diagnosis: &Diagnosis) -> Result<(), Error> {
        let Some(token) = diagnosis.datastore else {
            return Err(Error::failed("the token of the datastore is not known"));
        };
        for (name, server) in &facts.servers {
            if let Some(node) = &server.node
                && let Err(error) = self.clean_up(name, node, RUN).await
            {
                self.ui.warn(format!(
                    "not everything was removed from server {name}: {}",
                    error.message
                ));
            }
        }
        self.delete_own_record().await?;
        let obsolete = self.obsolete_rotation(token);
        if let Some(run) = &obsolete {
            self.delete_rotation(run, facts).await?;
        }
        self.ui.status(match &self.options.output {
            OutputTarget::File(path) if self.sent.contains(&token) && self.is_in_file(path, token) => {
                format!(
                    "Every server accepts token {token}, and starts with it. It is in {}.",
                    path.display()
                )
            }
            _ => format!("Every server accepts token {token}, and starts with it."),
        });
        let is_kept = obsolete.is_none()
            && self
                .leftovers
                .as_ref()
                .is_some_and(|leftovers| leftovers.rotation.is_some());
        if is_kept {
            let commands = &self.options.commands;
            let (rotate, rollback) = (commands.on("rotate", ""), commands.rollback());
            self.ui.status(format!(
                "A rotation is in progress, and has kept its record: `{rotate}` resumes it, and `{rollback}` restores the old token."
            ));
        }
        let has_other = self.leftovers.as_ref().is_some_and(|leftovers| leftovers.has_other);
        let release = if is_kept || has_other {
            Release::KeepJournal
        } else {
            Release::Finish("recovered".to_owned())
        };
        if let Some(lock) = self.lock.take()
            && let Err(lost) = lock.release(release).await
        {
            self.ui.warn(format!("the Lease was not released: {lost}"));
        }
        Ok(())
    }

    fn is_in_file(&self, path: &std::path::Path, token: TokenHash) -> bool {
        let holds = crate::server_token::session::output::holds(path);
        holds.and_then(|holds| self.tokens.hash_of(holds)) == Some(token)
    }

    /// A killed recovery can have left a service that is not restarted.
    async fn clean_up(&self, name: &str, node: &NodeState, run: &str) -> Result<(), Error> {
        let (access, target) = self.require_node(name, run)?;
        access.service(&target, ServiceAction::EndOnce).await?;
        let data = &node.configuration.data_dir;
        let files = [format!("{data}/server/token"), format!("{data}/server/cred/passwd")];
        let files: Vec<&str> = node.backups.iter().chain(&files).map(String::as_str).collect();
        Ok(access.forget(&target, &files).await?)
    }

    async fn delete_own_record(&mut self) -> Result<(), Error> {
        let own = self.leftovers.as_mut().and_then(|leftovers| leftovers.own.take());
        let (Some(own), Some(api)) = (own, &self.api) else {
            return Ok(());
        };
        backup::delete(&api.client, &own.version).await.map_err(in_words)
    }

    /// A rotation that does not know the token which every server has now cannot be resumed.
    fn obsolete_rotation(&self, token: TokenHash) -> Option<String> {
        let rotation = self.leftovers.as_ref()?.rotation.as_ref()?;
        let record = rotation
            .backup
            .as_ref()
            .map_or(&rotation.record, |backup| &backup.content.record);
        let knows = tokens_of(record).any(|known| self.tokens.hash_of(known) == Some(token));
        (!knows || rotation.backup.is_none()).then(|| rotation.run.clone())
    }

    /// As at the end of a rotation: its backups on nodes, and its Secret. The Lease loses its journal.
    async fn delete_rotation(&mut self, run: &str, facts: &RecoveryFacts) -> Result<(), Error> {
        for (name, server) in &facts.servers {
            if server.node.is_some() {
                let (access, target) = self.require_node(name, run)?;
                let read = access.read(&target, false).await?;
                self.clean_up(name, &read, run).await?;
            }
        }
        let rotation = self.leftovers.as_mut().and_then(|leftovers| leftovers.rotation.take());
        if let (Some(backup), Some(api)) = (rotation.and_then(|rotation| rotation.backup), &self.api) {
            backup::delete(&api.client, &backup.version).await.map_err(in_words)?;
        }
        self.ui.status(format!(
            "Rotation {run} cannot be resumed: its tokens are not valid any more. Its record was removed."
        ));
        Ok(())
    }
}
