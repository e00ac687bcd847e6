//! The operations on a node, in the terms of the domain.

use std::sync::Arc;

use client::secret::Secret;
use supervisor::{CaHash, ServerToken, TokenUser};

use crate::configuration::{PlaceKind, TokenPlace};
use crate::error::{Error, NodeProblem, Result};
use crate::options::ServiceOptions;
use crate::record::{self, ResultRecord};
use crate::script::{NodeOperation, Script};
use crate::shell::NodeShell;
use crate::state::{NodeState, ServiceState};
use crate::target::NodeTarget;

/// The lines of a whole file.
const WHOLE_FILE: u32 = 1_000_000;

/// Reads and changes nodes, by one way, in one run. Each function is one script on one node, and does not repeat it.
#[derive(Clone)]
pub struct NodeAccess {
    shell: Arc<dyn NodeShell>,
    options: ServiceOptions,
    run: String,
}

/// A file after it was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// Its path.
    pub file: String,
    /// Its SHA-256: what the next edit expects.
    pub sha256: String,
}

/// What is done with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceAction {
    /// Restart it. It is handed over: the service restarts after this has returned.
    Restart,
    /// Start it. It is handed over.
    Start,
    /// Start it once: systemd does not start it again if it fails, until [`ServiceAction::EndOnce`] or a reboot.
    StartOnce,
    /// Let systemd start it again if it fails.
    EndOnce,
    /// Stop it, and wait until it has stopped.
    Stop,
    /// Let systemd read its units again.
    Reload,
}

impl ServiceAction {
    fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Start => "start",
            Self::StartOnce => "start-once",
            Self::EndOnce => "end-once",
            Self::Stop => "stop",
            Self::Reload => "reload",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Restart => "restart the service",
            Self::Start | Self::StartOnce => "start the service",
            Self::EndOnce => "restore the restarts of the service",
            Self::Stop => "stop the service",
            Self::Reload => "reload the units",
        }
    }
}

impl NodeAccess {
    /// `run` is part of the names of backups: 1 to 40 lower-case letters, digits and dashes.
    ///
    /// # Panics
    /// If `run` is anything else, which would be a defect of the caller.
    pub fn new(shell: Arc<dyn NodeShell>, options: ServiceOptions, run: &str) -> Self {
        let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        assert!(
            (1..=40).contains(&run.len()) && run.bytes().all(is_plain),
            "the name of a run is plain"
        );
        Self {
            shell,
            options,
            run: run.to_owned(),
        }
    }

    /// Whether [`Self::read_token`] can work.
    pub fn returns_secrets(&self) -> bool {
        self.shell.returns_secrets()
    }

    /// Reads everything but secrets. `with_log`: also the last errors of the service's log.
    pub async fn read(&self, node: &NodeTarget, with_log: bool) -> Result<NodeState> {
        let doing = "read the configuration";
        let log_command = self.options.log_command.as_deref().unwrap_or_default();
        let variables = [("want_log", flag(with_log)), ("log_command", log_command)];
        let records = self.run(node, doing, NodeOperation::Read, &variables, None).await?;
        NodeState::of_records(&records).map_err(|problem| self.error(node, doing, problem))
    }

    /// The state of the service only.
    pub async fn service_state(&self, node: &NodeTarget) -> Result<ServiceState> {
        let doing = "read the state of the service";
        let variables = [("want_log", "")];
        let records = self.run(node, doing, NodeOperation::Status, &variables, None).await?;
        ServiceState::of_records(&records).map_err(|problem| self.error(node, doing, problem))
    }

    /// Removes a configured token. The first version of the file is kept as `FILE.<run>.bak`.
    ///
    /// A key that names a file is removed as a line; the file itself stays.
    pub async fn remove(&self, node: &NodeTarget, place: &TokenPlace) -> Result<Edited> {
        self.replace(node, place, place.lines, None).await
    }

    /// Writes a token in a place. For a key that names a file, the file is written. `is_removed`: the place was removed in this run, and
    /// `place.sha256` is that of the file after that.
    pub async fn set(&self, node: &NodeTarget, place: &TokenPlace, value: &Secret, is_removed: bool) -> Result<Edited> {
        let lines = if is_removed { 0 } else { place.lines };
        self.replace(node, place, lines, Some(value)).await
    }

    /// Writes a token into the target of `token-file`, which holds nothing else.
    async fn set_file(&self, node: &NodeTarget, file: &str, expected: &str, value: &Secret) -> Result<Edited> {
        let lines = WHOLE_FILE.to_string();
        let variables = [
            ("action", "replace"),
            ("files", file),
            ("expected", expected),
            ("kind", "file"),
            ("from", "1"),
            ("count", &lines),
            ("name", ""),
        ];
        let doing = format!("edit {file}");
        self.check_value(node, &doing, value)?;
        self.edit(node, &doing, &variables, Some(value)).await
    }

    /// Puts back the version that the first edit of this run has found. `expected`: the SHA-256 after the last edit.
    pub async fn restore(&self, node: &NodeTarget, place: &TokenPlace, expected: &str) -> Result<Edited> {
        let doing = format!("restore {}", place.file);
        let variables = [
            ("action", "restore"),
            ("files", place.file.as_str()),
            ("expected", expected),
        ];
        let edited = self.edit(node, &doing, &variables, None).await?;
        self.reload_after(node, place).await?;
        Ok(edited)
    }

    /// Removes the backups of this run.
    pub async fn forget(&self, node: &NodeTarget, files: &[&str]) -> Result<()> {
        let doing = "remove the backups";
        if files.iter().any(|file| file.contains(char::is_whitespace)) {
            return Err(self.error(
                node,
                doing,
                NodeProblem::Refused("a path contains white space".to_owned()),
            ));
        }
        let variables = [("action", "forget"), ("files", &files.join(" ")), ("expected", "")];
        self.run(node, doing, NodeOperation::Edit, &variables, None).await?;
        Ok(())
    }

    /// The content of `server/token` with the SHA-256 of the file. `None`: it does not exist.
    pub async fn read_token(&self, node: &NodeTarget) -> Result<Option<(Secret, String)>> {
        let doing = "read server/token";
        if !self.returns_secrets() {
            return Err(self.error(node, doing, NodeProblem::NoSecret));
        }
        let variables = [("action", "read"), ("expected", ""), ("k10", "")];
        let records = self.run(node, doing, NodeOperation::Token, &variables, None).await?;
        let value = records.iter().find(|record| record.name == "value");
        Ok(value.map(|record| (record.secret(1), record.text(0).to_owned())))
    }

    /// The token that a server accepts from agents, as its last start has written it. `None`: there is no `cred/passwd`, or it cannot be
    /// read as a line.
    pub async fn read_agent_token(&self, node: &NodeTarget) -> Result<Option<Secret>> {
        let doing = "read the agent token";
        if !self.returns_secrets() {
            return Err(self.error(node, doing, NodeProblem::NoSecret));
        }
        let variables = [("action", "agent"), ("expected", ""), ("k10", "")];
        let records = self.run(node, doing, NodeOperation::Token, &variables, None).await?;
        let value = records.iter().find(|record| record.name == "value");
        Ok(value.map(|record| record.secret(0)))
    }

    /// The tokens that the node has: in its configuration, where one can be of agents, in `server/token`, in `cred/passwd` and its
    /// backups. What is no token is left out.
    pub async fn read_tokens(&self, node: &NodeTarget) -> Result<Vec<ServerToken>> {
        let doing = "read the tokens of the server";
        if !self.returns_secrets() {
            return Err(self.error(node, doing, NodeProblem::NoSecret));
        }
        let variables = [("action", "values"), ("expected", ""), ("k10", "")];
        let records = self.run(node, doing, NodeOperation::Token, &variables, None).await?;
        let values = records.iter().filter(|record| record.name == "value");
        let tokens = values.filter_map(|record| ServerToken::parse(&record.secret(0)).ok());
        Ok(tokens.filter(|token| token.user == TokenUser::Server).collect())
    }

    /// Writes the password part of `server/token`. `ca_hash` is for a file that has lost its own. `expected`: its SHA-256; empty for a
    /// file that is missing, which is created.
    pub async fn write_token(
        &self,
        node: &NodeTarget,
        expected: &str,
        password: &Secret,
        ca_hash: Option<&CaHash>,
    ) -> Result<Edited> {
        let doing = "write server/token";
        self.check_value(node, doing, password)?;
        let k10 = ca_hash.map_or(String::new(), |hash| format!("K10{hash}::server:"));
        let variables = [("action", "write"), ("expected", expected), ("k10", &k10)];
        let records = self
            .run(node, doing, NodeOperation::Token, &variables, Some(password))
            .await?;
        self.edited(node, doing, &records)
    }

    /// Deletes `cred/passwd`, which the server writes again at its start. It is kept as a backup. No other file is ever deleted.
    pub async fn remove_passwd(&self, node: &NodeTarget, expected: &str) -> Result<()> {
        let variables = [("action", "remove-passwd"), ("expected", expected), ("k10", "")];
        self.run(node, "delete cred/passwd", NodeOperation::Token, &variables, None)
            .await?;
        Ok(())
    }

    /// Does something with the service.
    pub async fn service(&self, node: &NodeTarget, action: ServiceAction) -> Result<()> {
        let command = match action {
            ServiceAction::Restart => &self.options.restart_command,
            ServiceAction::Start | ServiceAction::StartOnce => &self.options.start_command,
            ServiceAction::Stop => &self.options.stop_command,
            ServiceAction::EndOnce | ServiceAction::Reload => &None,
        };
        // Whether the user's command starts it once is the user's to say.
        let name = match (action, command) {
            (ServiceAction::StartOnce, Some(_)) => ServiceAction::Start.name(),
            _ => action.name(),
        };
        let delay = match action {
            ServiceAction::Restart => self.shell.restart_delay().as_secs(),
            _ => 0,
        };
        let variables = [
            ("action", name),
            ("command", command.as_deref().unwrap_or_default()),
            ("delay", &delay.to_string()),
        ];
        self.run(node, action.describe(), NodeOperation::Service, &variables, None)
            .await?;
        Ok(())
    }

    async fn replace(
        &self,
        node: &NodeTarget,
        place: &TokenPlace,
        lines: u32,
        value: Option<&Secret>,
    ) -> Result<Edited> {
        if let (true, Some(value), Some(target)) = (place.key.is_file(), value, &place.target) {
            return self.set_file(node, target, &place.target_sha256, value).await;
        }
        let doing = format!("edit {}", place.describe());
        if let Some(blocker) = &place.blocker {
            let problem = NodeProblem::Blocked {
                reason: blocker.clone(),
                by_hand: place.by_hand(value.is_none()),
            };
            return Err(self.error(node, &doing, problem));
        }
        if let Some(value) = value {
            self.check_value(node, &doing, value)?;
        }
        let kind = match place.kind {
            PlaceKind::Args => "args",
            PlaceKind::Env => "env",
            PlaceKind::Yaml => "yaml",
            PlaceKind::Unit => "unit",
        };
        let (from, count) = (place.line.to_string(), lines.to_string());
        let variables = [
            ("action", "replace"),
            ("files", place.file.as_str()),
            ("expected", &place.sha256),
            ("kind", kind),
            ("from", &from),
            ("count", &count),
            ("name", &place.name),
        ];
        let edited = self.edit(node, &doing, &variables, value).await?;
        self.reload_after(node, place).await?;
        Ok(edited)
    }

    /// systemd obeys an edit of a unit only then.
    async fn reload_after(&self, node: &NodeTarget, place: &TokenPlace) -> Result<()> {
        match place.kind {
            PlaceKind::Args => self.service(node, ServiceAction::Reload).await,
            _ => Ok(()),
        }
    }

    async fn edit(
        &self,
        node: &NodeTarget,
        doing: &str,
        variables: &[(&str, &str)],
        value: Option<&Secret>,
    ) -> Result<Edited> {
        let records = self.run(node, doing, NodeOperation::Edit, variables, value).await?;
        self.edited(node, doing, &records)
    }

    fn edited(&self, node: &NodeTarget, doing: &str, records: &[ResultRecord]) -> Result<Edited> {
        let record = records.iter().find(|record| record.name == "edited");
        let record = record.ok_or_else(|| self.error(node, doing, NodeProblem::Malformed))?;
        Ok(Edited {
            file: record.text(0).to_owned(),
            sha256: record.text(1).to_owned(),
        })
    }

    /// A value that is the same in YAML, in an environment file and in a unit.
    fn check_value(&self, node: &NodeTarget, doing: &str, value: &Secret) -> Result<()> {
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"._:+=/@-".contains(&c);
        let text = value.expose();
        if !text.is_empty() && !text.starts_with('-') && text.bytes().all(is_plain) {
            return Ok(());
        }
        let reason = "the token is empty, or contains characters that cannot be written safely".to_owned();
        Err(self.error(node, doing, NodeProblem::Refused(reason)))
    }

    async fn run(
        &self,
        node: &NodeTarget,
        doing: &str,
        operation: NodeOperation,
        variables: &[(&str, &str)],
        secret: Option<&Secret>,
    ) -> Result<Vec<ResultRecord>> {
        // The node reports its own timeout before the command is killed.
        let limit = self.shell.timeout().as_secs().saturating_sub(2).max(1).to_string();
        let of_options = |option: &'_ Option<String>| option.clone().unwrap_or_default();
        let (config_file, data_dir) = (
            of_options(&self.options.config_file),
            of_options(&self.options.data_dir),
        );
        let mut all = vec![
            ("run", self.run.as_str()),
            ("program", self.options.kind.program()),
            ("units", self.options.units()),
            ("must_exist", flag(self.options.unit.is_some())),
            ("limit", &limit),
            ("config_file", &config_file),
            ("data_dir", &data_dir),
        ];
        all.extend_from_slice(variables);
        let script = Script::new(operation, &all, secret);
        let run = async {
            let output = self.shell.run(node, &script).await?;
            match record::parse(script.nonce(), &output.stdout) {
                // ssh and sh say on standard error why there is no result.
                Err(NodeProblem::Incomplete) if output.code != Some(0) => {
                    Err(NodeProblem::of_exit(output.code, &output.stderr, script.secrets()))
                }
                other => other,
            }
        };
        run.await.map_err(|problem| self.error(node, doing, problem))
    }

    fn error(&self, node: &NodeTarget, doing: &str, problem: NodeProblem) -> Error {
        Error {
            node: node.name().to_owned(),
            way: self.shell.way(),
            doing: doing.to_owned(),
            problem,
        }
    }
}

fn flag(is_set: bool) -> &'static str {
    if is_set { "1" } else { "" }
}
