//! The nodes: where a token is configured, edits of configurations, and restarts; with `--node-exec`, with a pod, or by an operator.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use client::error::Error;
use client::secret::Fingerprint;
use engine::controller::Failure;
use engine::lock::Fence;
use node_access::{Edited, Instruction, NodeAccess, NodeProblem, NodeState, NodeTarget, ServiceAction, TokenPlace};
use supervisor::SupervisorKind;
use supervisor::node::ClusterNode;

use super::abstraction::{Restarting, configured};
use super::backup::Content;
use super::tokens::with_hash;
use super::{Run, ServerTokenController};
use crate::server_token::node_way::{NO_RUN, check_machine};
use crate::server_token::rotation::dangerous::Restart;
use crate::server_token::rotation::observed::Configured;

/// A node, and the way to it.
struct AccessibleNode {
    access: NodeAccess,
    target: NodeTarget,
}

impl ServerTokenController<'_> {
    /// The way to a node. `None`: by hand.
    fn node(&self, run: Option<&Run>, node: &ClusterNode) -> Result<Option<AccessibleNode>, Failure> {
        let run = run.map_or_else(|| NO_RUN.to_owned(), |run| run.id.to_string());
        let (way, with) = (&self.options.nodes, (self.ui, self.cluster.client()));
        let found = way
            .to(node, with, &self.options.service, &run)
            .map_err(Failure::Permanent)?;
        Ok(found.map(|(access, target)| AccessibleNode { access, target }))
    }

    fn require_node(&self, run: &Run, name: &str) -> Result<AccessibleNode, Failure> {
        let node = self
            .state()
            .latest
            .as_ref()
            .and_then(|latest| latest.node(name).cloned());
        let node = self.node(Some(run), &node.ok_or(Failure::Conflict)?)?;
        node.ok_or_else(|| Failure::Permanent(Error::failed("there is no access to nodes")))
    }

    pub(super) async fn read_node(&self, run: Option<&Run>, node: &ClusterNode) -> Result<NodeState, Failure> {
        let found = self.node(run, node)?;
        let AccessibleNode { access, target } = found.ok_or(Failure::Conflict)?;
        let read = access.read(&target, false).await;
        // A connection that fails once is not the end of a run. Before a run begins, it is reported at once.
        let read = read.map_err(|error| Failure::Transient(error.into()))?;
        check_machine(&node.name, &node.machine_id, &read).map_err(Failure::Permanent)?;
        Ok(read)
    }

    /// Why an edit or a restart failed. If it may still arrive, that is remembered.
    fn failed(&self, error: node_access::Error) -> Failure {
        self.state().node_states.remove(&error.node);
        match error.problem {
            NodeProblem::Changed { .. } => Failure::Conflict,
            ref problem if problem.is_harmless() => Failure::Permanent(error.into()),
            _ => {
                self.state().memory.is_unanswered = true;
                Failure::Transient(error.into())
            }
        }
    }

    /// Deletes the pods that a killed process of the run has left. This one holds its lock.
    pub(super) async fn clean_up_pods(&self, run: &Run) -> Result<(), Error> {
        let run = run.id.to_string();
        match self.options.nodes.pods(self.ui, self.cluster.client(), &run) {
            Some(pods) => pods.clean_up(&self.cluster.server.clock, true).await,
            None => Ok(()),
        }
    }

    /// Asks for a restart, or has an operator do it. It has happened once an observation shows it.
    pub(super) async fn restart(&self, restart: &Restart, run: &Run, fence: &Fence) -> Result<(), Failure> {
        let name = restart.server();
        self.unchanged(run, &[name]).await?;
        let before = {
            let state = self.state();
            let seen = state.latest.as_ref().and_then(|latest| latest.seen.servers.get(name));
            let server = seen.ok_or(Failure::Conflict)?;
            Restarting {
                accepted: server.accepts,
                was_configured: matches!(server.configured, Configured::Token(_)),
                was_away: false,
            }
        };
        if restart.by_hand() {
            self.state().memory.restarting.insert(name.to_owned(), before);
            self.ui.status(instruction(name, restart.unpins(), self.options.kind));
            return Ok(());
        }
        let AccessibleNode { access, target } = self.require_node(run, name)?;
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        self.state().memory.restarting.insert(name.to_owned(), before);
        self.state().node_states.remove(name);
        let restarted = access.service(&target, ServiceAction::Restart).await;
        restarted.map_err(|error| {
            if error.problem.is_harmless() {
                self.state().memory.restarting.remove(name);
            }
            self.failed(error)
        })
    }

    /// Removes every token for servers from a configuration. The places are in the backup Secret before. An edit is carried out only if
    /// its file is as it was read.
    pub(super) async fn unpin(&self, name: &str, run: &Run, fence: &Fence) -> Result<(), Failure> {
        self.unchanged(run, &[]).await?;
        let AccessibleNode { access, target } = self.require_node(run, name)?;
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
            note(&mut content, name, &edited);
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
        let AccessibleNode { access, target } = self.require_node(run, name)?;
        let token = {
            let state = self.state();
            let hash = state.supervisors.values().next().map(|known| known.ca_hash().clone());
            with_hash(&state.tokens.require(value)?, hash.as_ref())
        };
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
            note(&mut content, name, &edited);
        }
        let read = access
            .read(&target, false)
            .await
            .map_err(|error| self.failed(error))?
            .configuration;
        if configured(&read) != Configured::Token(Some(value)) {
            let edited = match (read.effective(false), places.first()) {
                (Some(place), _) => access.set(&target, place, &token, false).await,
                (None, Some(place)) => access.set(&target, place, &token, true).await,
                (None, None) => return Err(Failure::Conflict),
            };
            note(&mut content, name, &edited.map_err(|error| self.failed(error))?);
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

    /// The backup Secret is gone: the nodes show the files.
    pub(super) async fn delete_configuration_backups(&self, run: &Run, fence: &Fence) -> Result<(), Failure> {
        let backups = self.state().node_states.backups();
        for (name, files) in backups {
            let AccessibleNode { access, target } = self.require_node(run, &name)?;
            if !fence.is_open() {
                return Err(Failure::LockLost);
            }
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            access
                .forget(&target, &files)
                .await
                .map_err(|error| self.failed(error))?;
            self.state().node_states.forget_backups(&name);
        }
        Ok(())
    }
}

fn of_servers(places: &[TokenPlace]) -> impl Iterator<Item = &TokenPlace> {
    places.iter().filter(|place| !place.key.is_for_agents())
}

/// The files that an edit of these places may have changed.
fn files_of(places: &[TokenPlace]) -> BTreeSet<String> {
    let targets = places.iter().filter_map(|place| place.target.clone());
    let files = places.iter().map(|place| place.file.clone());
    files.chain(targets).filter(|file| !file.is_empty()).collect()
}

/// The next edit of this file expects it as it is now.
fn note(content: &mut Content, name: &str, edited: &Edited) {
    for place in content.removed.get_mut(name).into_iter().flatten() {
        if place.file == edited.file {
            place.sha256.clone_from(&edited.sha256);
        }
    }
}

/// What an operator does on the node.
pub(crate) fn instruction(name: &str, unpins: bool, kind: SupervisorKind) -> String {
    let removal = unpins.then(|| Instruction::remove_token(name, kind));
    let all: Vec<Instruction> = removal.into_iter().chain([Instruction::restart(name, kind)]).collect();
    instructions(&all)
}

/// The instructions for one node, as they are printed.
pub(crate) fn instructions(all: &[Instruction]) -> String {
    let name = all.first().map_or("", |instruction| instruction.node.as_str());
    let mut text = format!("On server {name}:");
    for instruction in all {
        for step in &instruction.steps {
            let _ = write!(text, "\n  - {step}");
        }
        for command in &instruction.commands {
            let _ = write!(text, "\n      {command}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use node_access::{PlaceKind, TokenKey};

    use super::*;
    use crate::server_token::rotation::record::Record;

    fn place(file: &str, key: TokenKey, target: Option<&str>) -> TokenPlace {
        TokenPlace {
            kind: PlaceKind::Yaml,
            file: file.to_owned(),
            line: 1,
            lines: 1,
            name: "token".to_owned(),
            key,
            fingerprint: None,
            user: None,
            sha256: "before".to_owned(),
            target: target.map(str::to_owned),
            target_sha256: String::new(),
            blocker: None,
        }
    }

    #[test]
    fn an_operator_removes_a_configured_token_before_the_restart() {
        insta::assert_snapshot!(instruction("s1", true, SupervisorKind::K3s), @r"
        On server s1:
          - remove `token:` and `token-file:` from /etc/rancher/k3s/config.yaml and config.yaml.d
          - remove K3S_TOKEN and K3S_TOKEN_FILE from the environment file of k3s
          - remove --token and --token-file from the unit, then run systemctl daemon-reload
              grep -rlE '^(token|token-file):' /etc/rancher/k3s/
              systemctl cat k3s | grep -nE -- '--token|EnvironmentFile='
          - restart the service
              systemctl --no-block restart k3s
        ");
        insta::assert_snapshot!(instruction("s1", false, SupervisorKind::Rke2), @r"
        On server s1:
          - restart the service
              systemctl --no-block restart rke2-server
        ");
    }

    #[test]
    fn the_token_of_agents_is_left_alone() {
        let places = [
            place("a", TokenKey::Token, None),
            place("a", TokenKey::AgentToken, None),
            place("b", TokenKey::TokenFile, Some("c")),
        ];
        let kept: Vec<&TokenPlace> = of_servers(&places).collect();
        assert_eq!(kept, [&places[0], &places[2]]);
        assert_eq!(files_of(&places), ["a", "b", "c"].map(str::to_owned).into());
    }

    #[test]
    fn the_next_edit_of_a_file_expects_what_the_last_one_has_written() {
        let mut content = Content::new(Record {
            old: Fingerprint::of("old"),
            new: Vec::new(),
            is_given: false,
            is_ended: false,
            round: None,
        });
        let places = ["a", "a", "b"].map(|file| place(file, TokenKey::Token, None));
        content.removed.insert("s1".to_owned(), places.into());
        let edited = Edited {
            file: "a".to_owned(),
            sha256: "after".to_owned(),
        };
        note(&mut content, "s1", &edited);
        let digests: Vec<&str> = content.removed["s1"]
            .iter()
            .map(|place| place.sha256.as_str())
            .collect();
        assert_eq!(digests, ["after", "after", "before"]);
    }
}
