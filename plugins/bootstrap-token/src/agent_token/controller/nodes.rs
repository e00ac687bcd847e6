//! What the rotation of the agent token does on nodes.

use client::secret::{Fingerprint, Secret};
use engine::controller::Failure;
use engine::lock::Fence;
use node_access::{Configuration, Instruction, NodeProblem, NodeState, TokenPlace};

use super::{AgentTokenController, Run};
use crate::server_token::rotation::observed::Configured;
use crate::server_token::session::OutputTarget;
use crate::server_token::session::abstraction::configured;
use crate::server_token::session::nodes::{AccessibleNode, files_of, instructions, note};

impl AgentTokenController<'_> {
    /// Writes the token where K3s obeys it, or removes every agent token. The places are in the backup Secret before. An edit is carried
    /// out only if its file is as it was read. A rollback restores the files first.
    pub(super) async fn configure(
        &self,
        name: &str,
        value: Option<Fingerprint>,
        run: &Run,
        fence: &Fence,
    ) -> Result<(), Failure> {
        self.unchanged(run, &[]).await?;
        let node = self.require_node(&run.into(), name)?;
        let mut read = self.state().node_states.remove(name).ok_or(Failure::Conflict)?;
        let mut content = self.backup_content()?;
        let places = content.removed.entry(name.to_owned()).or_default();
        if run.direction.is_rollback() {
            self.restore(&node, &read, places, fence).await?;
            read = self.read_again(&node).await?;
        }
        let is_right = configured(&read.configuration, true)
            == value.map_or(Configured::Nowhere, |value| Configured::Token(Some(value)));
        if !is_right {
            for place in edited_places(&read.configuration, value.is_some()) {
                let is_known = |known: &TokenPlace| (&known.file, known.key) == (&place.file, place.key);
                if !places.iter().any(is_known) {
                    places.push(place);
                }
            }
            self.save(run, &mut content, fence).await?;
            let places = content.removed.entry(name.to_owned()).or_default();
            match value {
                Some(value) => {
                    // Of any form, K3s uses the password.
                    let token = self.state().tokens.require(value)?.password().clone();
                    self.write_token(&node, &read.configuration, &token, places, fence)
                        .await?;
                }
                None => self.remove_tokens(&node, read.configuration, places, fence).await?,
            }
        }
        if run.direction.is_rollback() {
            let files = read
                .backups
                .iter()
                .cloned()
                .chain(files_of(content.removed.get(name).map_or(&[][..], Vec::as_slice)));
            let files: Vec<String> = files.collect();
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            let forgotten = node.access.forget(&node.target, &files).await;
            forgotten.map_err(|error| self.failed(error))?;
            // That it is a server of the run stays known.
            content.removed.insert(name.to_owned(), Vec::new());
        }
        self.save(run, &mut content, fence).await
    }

    /// The files of which the run has a backup, as they were. One that was changed since stays as it is, or was restored before.
    async fn restore(
        &self,
        node: &AccessibleNode,
        read: &NodeState,
        places: &mut [TokenPlace],
        fence: &Fence,
    ) -> Result<(), Failure> {
        for file in &read.backups {
            let of_file = places.iter().find_map(|place| {
                let is_target = place.target.as_ref() == Some(file);
                let sha256 = if is_target { &place.target_sha256 } else { &place.sha256 };
                (is_target || place.file == *file).then(|| (place.clone(), sha256.clone()))
            });
            let Some((place, sha256)) = of_file else { continue };
            if !fence.is_open() {
                return Err(Failure::LockLost);
            }
            let place = TokenPlace {
                file: file.clone(),
                ..place
            };
            match node.access.restore(&node.target, &place, &sha256).await {
                Ok(edited) => note(places, &edited),
                Err(error) if matches!(error.problem, NodeProblem::Changed { .. }) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    async fn write_token(
        &self,
        node: &AccessibleNode,
        configuration: &Configuration,
        token: &Secret,
        places: &mut [TokenPlace],
        fence: &Fence,
    ) -> Result<(), Failure> {
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        let place = place_of(configuration);
        let edited = node.access.set(&node.target, &place, token, false).await;
        note(places, &edited.map_err(|error| self.failed(error))?);
        Ok(())
    }

    async fn remove_tokens(
        &self,
        node: &AccessibleNode,
        mut configuration: Configuration,
        places: &mut [TokenPlace],
        fence: &Fence,
    ) -> Result<(), Failure> {
        loop {
            // An edit moves the lines of the other places of the file, so they are read again.
            let next = of_agents(&configuration).next().cloned();
            let Some(place) = next else { return Ok(()) };
            if !fence.is_open() {
                return Err(Failure::LockLost);
            }
            let edited = node.access.remove(&node.target, &place).await;
            note(places, &edited.map_err(|error| self.failed(error))?);
            configuration = self.read_again(node).await?.configuration;
        }
    }

    async fn read_again(&self, node: &AccessibleNode) -> Result<NodeState, Failure> {
        let read = node.access.read(&node.target, false).await;
        read.map_err(|error| self.failed(error))
    }

    /// An agent has its token in its own configuration, as `token`. The edit is carried out only if the file is as it was read.
    pub(super) async fn configure_agent(
        &self,
        name: &str,
        value: Fingerprint,
        run: &Run,
        fence: &Fence,
    ) -> Result<(), Failure> {
        let node = self.require_node(&run.into(), name)?;
        let read = self.state().node_states.remove(name).ok_or(Failure::Conflict)?;
        let place = read.configuration.effective(false).ok_or(Failure::Conflict)?;
        // Of the same form as before.
        let token = match place.user {
            Some(_) => self.text(value)?,
            None => self.state().tokens.require(value)?.password().clone(),
        };
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        match node.access.set(&node.target, place, &token, false).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.problem, NodeProblem::Changed { .. }) => Err(Failure::Conflict),
            Err(error) => {
                self.skip_agent(name, &error.into());
                Ok(())
            }
        }
    }

    /// What an operator does on a server.
    pub(super) fn instruction(&self, name: &str, value: Option<Fingerprint>, run: &Run) -> String {
        let kind = self.options.kind;
        let words = value.map(|_| match &self.options.output {
            _ if run.direction.is_rollback() => "the old agent token".to_owned(),
            OutputTarget::File(path) => format!("the new agent token, which is in {},", path.display()),
            OutputTarget::Print | OutputTarget::Nowhere => "the new agent token".to_owned(),
        });
        instructions(&[
            Instruction::configure_agent_token(name, kind, words.as_deref()),
            Instruction::restart(name, kind),
        ])
    }
}

fn of_agents(configuration: &Configuration) -> impl Iterator<Item = &TokenPlace> {
    let places = configuration.places.iter();
    places.filter(|place| place.key.is_for_agents())
}

/// Where the next start finds the agent token.
fn place_of(configuration: &Configuration) -> TokenPlace {
    let place = configuration.effective(true).cloned();
    place.unwrap_or_else(|| configuration.new_agent_token())
}

fn edited_places(configuration: &Configuration, writes: bool) -> Vec<TokenPlace> {
    if writes {
        vec![place_of(configuration)]
    } else {
        of_agents(configuration).cloned().collect()
    }
}
