//! Carries out one action on nodes, and takes snapshots. Rounds are in [`round`](super::round).

use client::error::Error;
use futures::future::join_all;
use node_access::{NodeAccess, NodeProblem, NodeTarget, ServiceAction, ServiceManager};
use supervisor::snapshot;

use super::{RUN, Recoverer};
use crate::server_token::recovery::facts::{RecoveryFacts, ServerFacts};
use crate::server_token::recovery::plan::RecoveryAction;
use crate::server_token::session::nodes::instruction;
use crate::server_token::snapshots;

impl Recoverer<'_> {
    pub(super) async fn act(&mut self, action: &RecoveryAction, facts: &RecoveryFacts) -> Result<(), Error> {
        let server = |name: &String| {
            let found = facts.servers.get(name);
            found.ok_or_else(|| Error::failed(format!("server {name} is not known")))
        };
        match action {
            RecoveryAction::Round(round) => return self.send_round(round, facts).await,
            RecoveryAction::Snapshot => return self.take_snapshots(facts).await,
            RecoveryAction::Restart { server: name, unpins } => {
                return self.restart(name, server(name)?, *unpins, facts).await;
            }
            RecoveryAction::StartOnce { server: name } => {
                let number = self.starts;
                self.starts += 1;
                self.memory(name).start_once(server(name)?, number);
                return self.service(name, ServiceAction::StartOnce).await;
            }
            RecoveryAction::EndOnce { server: name } => {
                self.memory(name).end_once();
                return self.service(name, ServiceAction::EndOnce).await;
            }
            RecoveryAction::Stop { server: name } => {
                self.service(name, ServiceAction::Stop).await?;
                let is_by_command = self.options.service.stop_command.is_some();
                let state = server(name)?.node.as_ref();
                if is_by_command || state.is_some_and(|node| node.service.manager == ServiceManager::Unknown) {
                    self.memory(name).stopped();
                }
                return Ok(());
            }
            RecoveryAction::Unpin { .. } | RecoveryAction::WriteToken { .. } | RecoveryAction::DeletePasswd { .. } => {}
        }
        let edited = self.edit(action, &server).await;
        self.settled(edited).map(drop)
    }

    async fn edit<'f>(
        &self,
        action: &RecoveryAction,
        facts: &impl Fn(&String) -> Result<&'f ServerFacts, Error>,
    ) -> Result<Result<(), node_access::Error>, Error> {
        Ok(match action {
            RecoveryAction::Unpin { server } => {
                let place = facts(server)?.place();
                let place = place.ok_or_else(|| Error::failed(format!("no token is configured on server {server}")))?;
                let (access, target) = self.require_node(server, RUN)?;
                access.remove(&target, place).await.map(drop)
            }
            RecoveryAction::WriteToken { server, value } => {
                let (access, target) = self.require_node(server, RUN)?;
                let file = facts(server)?.node.as_ref().and_then(|node| node.server_token.as_ref());
                let expected = file.map_or("", |file| file.sha256.as_str());
                let (password, ca_hash) = (self.tokens.password(*value)?, self.ca_hash());
                let written = access.write_token(&target, expected, &password, ca_hash.as_ref());
                written.await.map(drop)
            }
            RecoveryAction::DeletePasswd { server } => {
                let (access, target) = self.require_node(server, RUN)?;
                let file = facts(server)?.passwd_file();
                let file = file.ok_or_else(|| Error::failed(format!("server {server} has no cred/passwd")))?;
                access.remove_passwd(&target, &file.sha256).await
            }
            _ => Ok(()),
        })
    }

    /// An edit that has found another file is decided again. One without a result may still arrive.
    fn settled(&mut self, edited: Result<Result<(), node_access::Error>, Error>) -> Result<bool, Error> {
        match edited? {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.problem, NodeProblem::Changed { .. }) => Ok(false),
            Err(error) if error.problem.is_harmless() => Err(error.into()),
            Err(error) => {
                self.ui.warn(error.to_string());
                self.may_arrive();
                Ok(false)
            }
        }
    }

    pub(super) fn require_node(&self, server: &str, run: &str) -> Result<(NodeAccess, NodeTarget), Error> {
        let access = self.node_access(server, run)?;
        access.ok_or_else(|| Error::failed(format!("there is no access to node {server}")).hint("add --node-exec"))
    }

    async fn service(&mut self, server: &str, action: ServiceAction) -> Result<(), Error> {
        let (access, target) = self.require_node(server, RUN)?;
        let done = access.service(&target, action).await;
        let is_harmless = done.as_ref().is_err_and(|error| error.problem.is_harmless());
        if is_harmless && matches!(action, ServiceAction::StartOnce | ServiceAction::Restart) {
            self.memory(server).not_begun();
        }
        self.settled(Ok(done)).map(drop)
    }

    /// Asks for it, or has an operator do it. It has happened once an observation shows it.
    async fn restart(
        &mut self,
        name: &str,
        server: &ServerFacts,
        unpins: bool,
        facts: &RecoveryFacts,
    ) -> Result<(), Error> {
        self.memory(name).restart(server);
        if server.node.is_some() && !unpins {
            return self.service(name, ServiceAction::Restart).await;
        }
        self.ui.status(instruction(name, unpins, facts.supervisor));
        Ok(())
    }

    /// Takes one on each server, and deletes them again: their annotations show what the files of the servers have.
    async fn take_snapshots(&mut self, facts: &RecoveryFacts) -> Result<(), Error> {
        let name = format!("server-token-recover-{}-check", self.id);
        let mut logins = Vec::new();
        for server in facts.servers.keys() {
            logins.push((server.clone(), self.login(server, facts)?));
        }
        let taken = join_all(
            logins
                .iter()
                .map(|(_, (supervisor, password))| supervisor.save_snapshot(password, &name)),
        )
        .await;
        let mut names: Vec<(String, Vec<String>)> = Vec::new();
        for ((server, _), taken) in logins.iter().zip(taken) {
            names.push((server.clone(), taken.map_err(Error::from)?));
        }
        let Some(api) = self.api.clone() else { return Ok(()) };
        let kind = self.kind;
        let list = || async { snapshot::list(&api.client, kind).await.map_err(Error::from) };
        let (shown, _) = snapshots::shown(&names, list).await?;
        for (server, hash) in shown {
            self.memory(&server).snapshot(hash);
        }
        for ((server, names), (_, (supervisor, password))) in names.iter().zip(&logins) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if let Err(error) = supervisor.delete_snapshots(password, &names).await {
                self.ui
                    .warn(format!("snapshots of server {server} were not deleted: {error}"));
            }
        }
        Ok(())
    }
}
