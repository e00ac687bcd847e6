//! What the rotation of the server token does on nodes.

use std::collections::BTreeMap;

use client::secret::Fingerprint;
use engine::controller::Failure;
use engine::lock::Fence;
use node_access::{Edited, TokenPlace};

use super::{Run, ServerTokenController};
use crate::server_token::rotation::dangerous::Restart;
use crate::server_token::rotation::observed::Configured;
use crate::server_token::session::abstraction::configured;
use crate::server_token::session::nodes::{self, AccessibleNode, files_of, instruction};

impl ServerTokenController<'_> {
    /// See [`Session::restart`](crate::server_token::session::Session::restart).
    pub(super) async fn restart(&self, restart: &Restart, run: &Run, fence: &Fence) -> Result<(), Failure> {
        let name = restart.server();
        self.unchanged(run, &[name]).await?;
        let kind = self.options.kind;
        let by_hand = restart.by_hand().then(|| instruction(name, restart.unpins(), kind));
        self.session.restart(name, by_hand, &run.into(), fence).await
    }

    /// Removes every token for servers from a configuration. The places are in the backup Secret before. An edit is carried out only if
    /// its file is as it was read.
    pub(super) async fn unpin(&self, name: &str, run: &Run, fence: &Fence) -> Result<(), Failure> {
        self.unchanged(run, &[]).await?;
        let AccessibleNode { access, target } = self.require_node(&run.into(), name)?;
        let mut content = self.backup_content()?;
        let read = self.state().node_states.remove(name);
        let mut configuration = read.ok_or(Failure::Conflict)?.configuration;
        let removed = content.removed.entry(name.to_owned()).or_default();
        for place in of_servers(&configuration.places) {
            if !removed
                .iter()
                .any(|one| (&one.file, one.key) == (&place.file, place.key))
            {
                removed.push(place.clone());
            }
        }
        self.save(run, &mut content, fence).await?;
        loop {
            // An edit moves the lines of the other places of the file, so they are read again.
            let next = of_servers(&configuration.places).next().cloned();
            let Some(place) = next else { break };
            if !fence.is_open() {
                return Err(Failure::LockLost);
            }
            let edited = access
                .remove(&target, &place)
                .await
                .map_err(|error| self.failed(error))?;
            note(&mut content.removed, name, &edited);
            let read = access.read(&target, false).await.map_err(|error| self.failed(error))?;
            configuration = read.configuration.clone();
            self.state().node_states.insert(name, read);
        }
        self.save(run, &mut content, fence).await
    }

    /// Puts a token into a configuration: of a server, where the run has removed one; of an agent, where it has another one. A rollback
    /// restores the files as they were.
    pub(super) async fn repin(&self, name: &str, value: Fingerprint, run: &Run, fence: &Fence) -> Result<(), Failure> {
        self.unchanged(run, &[]).await?;
        let AccessibleNode { access, target } = self.require_node(&run.into(), name)?;
        let token = self.text(value)?;
        let mut content = self.backup_content()?;
        let places = content.removed.get(name).cloned().unwrap_or_default();
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        self.state().node_states.remove(name);
        let is_rollback = run.direction.is_rollback();
        for place in places.iter().filter(|place| is_rollback || place.key.is_file()) {
            let edited = access
                .restore(&target, place, &place.sha256)
                .await
                .map_err(|error| self.failed(error))?;
            note(&mut content.removed, name, &edited);
        }
        let read = access
            .read(&target, false)
            .await
            .map_err(|error| self.failed(error))?
            .configuration;
        if configured(&read, false) != Configured::Token(Some(value)) {
            let edited = match (read.effective(false), places.first()) {
                (Some(place), _) => access.set(&target, place, &token, false).await,
                (None, Some(place)) => access.set(&target, place, &token, true).await,
                (None, None) => return Err(Failure::Conflict),
            };
            note(&mut content.removed, name, &edited.map_err(|error| self.failed(error))?);
        }
        if !is_rollback && !places.is_empty() {
            return self.save(run, &mut content, fence).await;
        }
        // An agent has no backup in the record of the run, and a rollback needs none any more.
        let files = files_of(if places.is_empty() { &read.places } else { &places });
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        access
            .forget(&target, &files)
            .await
            .map_err(|error| self.failed(error))?;
        if content.removed.remove(name).is_some() {
            self.save(run, &mut content, fence).await?;
        }
        Ok(())
    }
}

fn of_servers(places: &[TokenPlace]) -> impl Iterator<Item = &TokenPlace> {
    places.iter().filter(|place| !place.key.is_for_agents())
}

fn note(removed: &mut BTreeMap<String, Vec<TokenPlace>>, name: &str, edited: &Edited) {
    if let Some(places) = removed.get_mut(name) {
        nodes::note(places, edited);
    }
}
