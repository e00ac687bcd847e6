//! The nodes: where a token is configured, edits of configurations, and restarts; with `--node-exec`, with a pod, or by an operator.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use client::error::Error;
use engine::controller::Failure;
use engine::lock::Fence;
use node_access::{Edited, Instruction, NodeAccess, NodeProblem, NodeState, NodeTarget, ServiceAction, TokenPlace};
use supervisor::SupervisorKind;
use supervisor::node::ClusterNode;

use super::abstraction::Restarting;
use super::{RunFacts, Session};
use crate::server_token::node_way::{NO_RUN, check_machine};
use crate::server_token::rotation::observed::Configured;

/// A node, and the way to it.
pub(crate) struct AccessibleNode {
    pub(crate) access: NodeAccess,
    pub(crate) target: NodeTarget,
}

impl Session<'_> {
    /// The way to a node. `None`: by hand.
    fn node(&self, run: Option<&RunFacts>, node: &ClusterNode) -> Result<Option<AccessibleNode>, Failure> {
        let run = run.map_or_else(|| NO_RUN.to_owned(), |run| run.id.clone());
        let (way, with) = (&self.options.nodes, (self.ui, self.cluster.client()));
        let found = way
            .to(node, with, &self.options.service, &run)
            .map_err(Failure::Permanent)?;
        Ok(found.map(|(access, target)| AccessibleNode { access, target }))
    }

    pub(crate) fn require_node(&self, run: &RunFacts, name: &str) -> Result<AccessibleNode, Failure> {
        let node = self
            .state()
            .latest
            .as_ref()
            .and_then(|latest| latest.node(name).cloned());
        let node = self.node(Some(run), &node.ok_or(Failure::Conflict)?)?;
        node.ok_or_else(|| Failure::Permanent(Error::failed("there is no access to nodes")))
    }

    pub(crate) async fn read_node(&self, run: Option<&RunFacts>, node: &ClusterNode) -> Result<NodeState, Failure> {
        let found = self.node(run, node)?;
        let AccessibleNode { access, target } = found.ok_or(Failure::Conflict)?;
        let read = access.read(&target, false).await;
        // A connection that fails once is not the end of a run. Before a run begins, it is reported at once.
        let read = read.map_err(|error| Failure::Transient(error.into()))?;
        check_machine(&node.name, &node.machine_id, &read).map_err(Failure::Permanent)?;
        Ok(read)
    }

    /// Why an edit or a restart failed. If it may still arrive, that is remembered.
    pub(crate) fn failed(&self, error: node_access::Error) -> Failure {
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
    async fn clean_up_pods(&self, run: &RunFacts) -> Result<(), Error> {
        match self.options.nodes.pods(self.ui, self.cluster.client(), &run.id) {
            Some(pods) => pods.clean_up(&self.cluster.server.clock, true).await,
            None => Ok(()),
        }
    }

    /// Once, before the first step: deletes what another process of this run has left running.
    pub(crate) async fn clean_up_once(&self, run: &RunFacts) -> Result<(), Failure> {
        let is_due = {
            let mut state = self.state();
            !state.memory.is_own && !std::mem::replace(&mut state.is_cleaned_up, true)
        };
        if is_due {
            self.clean_up_pods(run).await?;
        }
        Ok(())
    }

    /// Asks for a restart, or has an operator do it. It has happened once an observation shows it. `by_hand`: what the operator does.
    pub(crate) async fn restart(
        &self,
        name: &str,
        by_hand: Option<String>,
        run: &RunFacts,
        fence: &Fence,
    ) -> Result<(), Failure> {
        let before = {
            let state = self.state();
            let seen = state.latest.as_ref().and_then(|latest| latest.seen.servers.get(name));
            let server = seen.ok_or(Failure::Conflict)?;
            Restarting {
                accepted: server.accepts,
                was_configured: matches!(server.configured, Configured::Token(_)),
                as_node: server.as_node,
                was_away: false,
                was_silent: false,
            }
        };
        if let Some(instruction) = by_hand {
            self.state().memory.restarting.insert(name.to_owned(), before);
            self.ui.status(instruction);
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

    /// The backup Secret is gone: the nodes show the files.
    pub(crate) async fn delete_configuration_backups(&self, run: &RunFacts, fence: &Fence) -> Result<(), Failure> {
        let backups = self.state().node_states.backups();
        for (name, files) in backups {
            let AccessibleNode { access, target } = self.require_node(run, &name)?;
            if !fence.is_open() {
                return Err(Failure::LockLost);
            }
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            match access.forget(&target, &files).await {
                Ok(()) => self.state().node_states.forget_backups(&name),
                Err(error) if !self.server_names().contains(&name) => self.skip_agent(&name, &error.into()),
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Nothing depends on an agent. One that cannot be read or written is named, and left as it is by this process.
    pub(crate) fn skip_agent(&self, name: &str, error: &Error) {
        self.ui.warn(format!("agent {name} is skipped: {}", error.message));
        let mut state = self.state();
        state.node_states.remove(name);
        state.skipped_agents.insert(name.to_owned());
    }
}

/// The files that an edit of these places may have changed.
pub(crate) fn files_of(places: &[TokenPlace]) -> BTreeSet<String> {
    let targets = places.iter().filter_map(|place| place.target.clone());
    let files = places.iter().map(|place| place.file.clone());
    files.chain(targets).filter(|file| !file.is_empty()).collect()
}

/// The next edit of this file expects it as it is now.
pub(crate) fn note(places: &mut [TokenPlace], edited: &Edited) {
    for place in places {
        if place.file == edited.file {
            place.sha256.clone_from(&edited.sha256);
        }
        if place.target.as_ref() == Some(&edited.file) {
            place.target_sha256.clone_from(&edited.sha256);
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
    fn the_files_of_places_are_those_that_an_edit_may_change() {
        let places = [
            place("a", TokenKey::Token, None),
            place("a", TokenKey::AgentToken, None),
            place("b", TokenKey::TokenFile, Some("c")),
        ];
        assert_eq!(files_of(&places), ["a", "b", "c"].map(str::to_owned).into());
    }

    #[test]
    fn the_next_edit_of_a_file_expects_what_the_last_one_has_written() {
        let mut places = ["a", "a", "b"].map(|file| place(file, TokenKey::Token, None));
        let edited = Edited {
            file: "a".to_owned(),
            sha256: "after".to_owned(),
        };
        note(&mut places, &edited);
        let digests = places.each_ref().map(|place| place.sha256.as_str());
        assert_eq!(digests, ["after", "after", "before"]);
    }
}
