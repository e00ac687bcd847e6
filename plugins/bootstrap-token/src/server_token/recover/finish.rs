//! The end of a recovery: what it has left on nodes and in the cluster is removed, and the user learns what a rotation in progress needs.

use client::error::Error;
use engine::lock::Release;
use node_access::{NodeState, ServiceAction, ServiceOptions};
use supervisor::TokenHash;

use super::leftovers::in_words;
use super::{RUN, Recoverer};
use crate::server_token::controller::OutputTarget;
use crate::server_token::controller::backup::{self, tokens_of};
use crate::server_token::recovery::diagnosis::Diagnosis;
use crate::server_token::recovery::facts::RecoveryFacts;

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
                    "Every server accepts {token}, and starts with it. It is in {}.",
                    path.display()
                )
            }
            _ => format!("Every server accepts {token}, and starts with it."),
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
        let release = if is_kept {
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
        let holds = crate::server_token::controller::output::holds(path);
        holds.and_then(|holds| self.tokens.hash_of(holds)) == Some(token)
    }

    /// A killed recovery can have left a service that is not restarted.
    async fn clean_up(&self, name: &str, node: &NodeState, run: &str) -> Result<(), Error> {
        let (access, target) = self.require_node(name)?;
        access.service(&target, ServiceAction::EndOnce).await?;
        let data = &node.configuration.data_dir;
        let files = [format!("{data}/server/token"), format!("{data}/server/cred/passwd")];
        let files: Vec<&str> = node.backups.iter().chain(&files).map(String::as_str).collect();
        let access = if run == RUN { access } else { self.access_of(name, run)? };
        Ok(access.forget(&target, &files).await?)
    }

    /// The way to a node, in the name of a rotation.
    fn access_of(&self, name: &str, run: &str) -> Result<node_access::NodeAccess, Error> {
        let client = &self.api.as_ref().unwrap_or(&self.cluster.server).client;
        let service = ServiceOptions {
            kind: self.kind,
            ..self.options.service.clone()
        };
        let access = self.options.nodes.access(self.ui, client, service, run, self.pods());
        access.ok_or_else(|| Error::failed(format!("there is no access to node {name}")))
    }

    async fn delete_own_record(&mut self) -> Result<(), Error> {
        let own = self.leftovers.as_mut().and_then(|leftovers| leftovers.own.take());
        let (Some(own), Some(api)) = (own, &self.api) else {
            return Ok(());
        };
        backup::delete(&api.client, &own).await.map_err(in_words)
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
                let (_, target) = self.require_node(name)?;
                let access = self.access_of(name, run)?;
                let read = access.read(&target, false).await?;
                self.clean_up(name, &read, run).await?;
            }
        }
        let rotation = self.leftovers.as_mut().and_then(|leftovers| leftovers.rotation.take());
        if let (Some(backup), Some(api)) = (rotation.and_then(|rotation| rotation.backup), &self.api) {
            backup::delete(&api.client, &backup).await.map_err(in_words)?;
        }
        self.ui.status(format!(
            "Rotation {run} cannot be resumed: its tokens are not valid any more. Its record was removed."
        ));
        Ok(())
    }
}
