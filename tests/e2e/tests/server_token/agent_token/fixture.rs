//! A cluster whose agent token is changed, and what has to be true at the end.

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, Running, Shell};
use serde_json::{Value, json};

use crate::cluster::{TOKEN, file};
use crate::rotation_fixture::{RotationFixture, hash12};

/// The agent token at the start, where there is one.
pub(crate) const AGENT: &str = "9a8b7c6d5e4f30219a8b7c6d5e4f3021";

pub(crate) struct AgentFixture {
    pub(crate) rotation: RotationFixture,
    /// The file that a new agent token is written to.
    pub(crate) agent: String,
}

impl AgentFixture {
    /// `name` must be unique. `agent`: the agent token of every server. Each write of a file is so much later than the one before that the
    /// rule about file times can strike.
    pub(crate) async fn start(name: &str, count: usize, agent: Option<&str>, mut cluster: Value) -> Result<Self> {
        let servers = ["s1", "s2", "s3"].map(|name| json!({ "name": name, "pin": "nowhere" }));
        cluster["servers"] = json!(servers[..count]);
        cluster["timing"] = json!({ "writeGap": 4 });
        if let Some(agent) = agent {
            cluster["agentToken"] = json!(agent);
        }
        let rotation = RotationFixture::start(name, cluster).await?;
        let path = rotation.shell().home().join("agent");
        let agent = path.to_str().context("the path is not UTF-8")?.to_owned();
        Ok(Self { rotation, agent })
    }

    pub(crate) fn shell(&self) -> &Shell {
        self.rotation.shell()
    }

    pub(crate) fn args(&self, verb: &str, more: &[&str]) -> Vec<String> {
        let common = ["agent-token", verb, "--yes", "--token-file", self.rotation.old_file()];
        let output = ["--write-token", self.agent.as_str()];
        let writes = ["set", "rotate"].contains(&verb) && !more.contains(&"--new-agent-token-file");
        let output = if writes { &output[..] } else { &[] };
        let words = common.iter().chain(output).chain(more);
        words.map(|word| (*word).to_owned()).collect()
    }

    /// Runs the command with access to the nodes.
    pub(crate) async fn run(&self, verb: &str, more: &[&str]) -> Result<CommandOutput> {
        let exec = self.rotation.node_exec()?;
        let more: Vec<&str> = [exec.as_str()].into_iter().chain(more.iter().copied()).collect();
        self.shell().bootstrap_token(self.args(verb, &more)).run().await
    }

    /// Runs it without.
    pub(crate) async fn run_by_hand(&self, verb: &str, more: &[&str]) -> Result<CommandOutput> {
        self.shell().bootstrap_token(self.args(verb, more)).run().await
    }

    pub(crate) async fn spawn(&self, shell: &Shell, verb: &str, more: &[&str]) -> Result<Running> {
        shell.bootstrap_token(self.args(verb, more)).start().await
    }

    /// The new agent token, without the hash of the CA.
    pub(crate) fn new_token(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.agent)?;
        let prefix = format!("K10{}::node:", self.rotation.servers.ca_hash());
        let token = text.trim_end().strip_prefix(&prefix);
        token
            .map(str::to_owned)
            .with_context(|| format!("not an agent token of this cluster: {text}"))
    }

    /// A file with an agent token.
    pub(crate) fn file(&self, name: &str, token: &str) -> Result<String> {
        file(self.shell(), name, &format!("{token}\n"), 0o600)
    }

    /// A configuration file of a server.
    pub(crate) fn config(&self, server: &str, name: &str) -> std::path::PathBuf {
        self.rotation.servers.cluster.root(server).join(name)
    }

    /// Every server accepts this token from agents, and starts again with it. Nothing is left of the rotation.
    pub(crate) async fn all_accept(&self, token: &str) -> Result<()> {
        self.accept_now(token).await?;
        self.rotation.has_left_nothing().await?;
        self.rotation.starts_again().await?;
        self.accept_now(token).await
    }

    /// Every server accepts this token from agents.
    pub(crate) async fn accept_now(&self, token: &str) -> Result<()> {
        let cluster = &self.rotation.servers.cluster;
        let is_ready = |state: &Value| {
            let servers = state["servers"].as_object();
            servers.is_some_and(|all| all.values().all(|server| server["phase"] == "ready"))
        };
        let state = cluster.wait_for("all servers to be ready", is_ready).await?;
        for (name, server) in state["servers"].as_object().context("no servers")? {
            let live = (&server["live"]["server"], &server["live"]["node"]);
            ensure!(
                live == (&json!(hash12(TOKEN)), &json!(hash12(token))),
                "{name} accepts {live:?}: {server}"
            );
        }
        Ok(())
    }

    /// An operator who does on each server what the command asks for.
    pub(crate) async fn operate(&self, running: &Running, servers: &[&str], token: Option<&str>) -> Result<()> {
        let cluster = &self.rotation.servers.cluster;
        let mut rest = servers.to_vec();
        while !rest.is_empty() {
            let is_asked = |text: &str, server: &str| text.contains(&format!("On server {server}:"));
            let find = |text: &str| rest.iter().copied().find(|server| is_asked(text, server));
            let server = running.until_stderr("an instruction for an operator", find).await?;
            let token = match token {
                Some(token) => Some(token.to_owned()),
                None => Some(self.new_token()?),
            };
            self.configure(server, token.as_deref())?;
            ensure!(cluster.restart_server(server).await?, "{server} does not start");
            rest.retain(|other| *other != server);
        }
        Ok(())
    }

    /// Writes the agent token into `config.yaml`, or removes it.
    pub(crate) fn configure(&self, server: &str, token: Option<&str>) -> Result<()> {
        let path = self.config(server, "etc/rancher/k3s/config.yaml");
        let text = std::fs::read_to_string(&path)?;
        let others = text.lines().filter(|line| !line.starts_with("agent-token:"));
        let own = token.map(|token| format!("agent-token: \"{token}\""));
        let lines: Vec<&str> = others.chain(own.as_deref()).collect();
        Ok(std::fs::write(path, lines.join("\n") + "\n")?)
    }

    /// No token is in the output.
    pub(crate) fn prints_no_token(&self, output: &CommandOutput) -> Result<()> {
        let text = output.to_string();
        let new = self.new_token().ok();
        for token in [Some(TOKEN), Some(AGENT), new.as_deref()].into_iter().flatten() {
            ensure!(!text.contains(token), "a token is printed:\n{text}");
        }
        Ok(())
    }

    pub(crate) async fn verify(&self, token: &str, code: i32) -> Result<CommandOutput> {
        let path = self.file("verified", token)?;
        let args = ["agent-token", "verify", "--agent-token-file", &path];
        self.shell().bootstrap_token(args).run().await?.expect(code)
    }
}
