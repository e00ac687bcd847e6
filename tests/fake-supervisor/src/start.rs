//! What a server decides and writes at its start, before it serves: `pkg/cluster/bootstrap.go` and
//! `pkg/daemons/control/deps/deps.go` of v1.36.3+k3s1, and what was seen on that release and on v1.33.3+k3s1.

use anyhow::Result;

use crate::client::Client;
use crate::config::Line;
use crate::datastore::{Contents, DIFFERENT_TOKEN, Datastore};
use crate::encryption;
use crate::files::{Bundle, ServerFiles};
use crate::journal::Journal;
use crate::node::Node;
use crate::passwd::Passwd;
use crate::settings::Settings;
use crate::token::{normalize, parse_full};

/// The end of a start, with the line in its log.
#[derive(Debug)]
pub(crate) struct Fatal {
    pub(crate) message: String,
    /// Seconds from the start to the end, on a real server.
    pub(crate) after: f64,
    /// The message is a Go panic, not a log line.
    pub(crate) panic: bool,
}

impl Fatal {
    fn after(after: f64, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            message,
            after,
            panic: false,
        }
    }
}

/// A start that has got so far that it will serve.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The token in memory: what it saves with, and what its datastore key must be.
    pub(crate) token: String,
    /// What it accepts until its next start.
    pub(crate) logins: Passwd,
    /// If the key is not the datastore's: seconds from the start to the end.
    pub(crate) exits_after: f64,
}

pub(crate) struct Start<'a> {
    pub(crate) node: &'a Node,
    pub(crate) settings: &'a Settings,
    pub(crate) files: &'a ServerFiles,
    pub(crate) journal: &'a Journal,
    pub(crate) ca_pem: &'a str,
    pub(crate) ca_hash: &'a str,
}

/// How the bootstrap data came.
enum Source {
    /// From the join server.
    Remote(Bundle),
    Local(Bundle),
    /// There is none: this is the first start of a new cluster.
    New,
}

impl Start<'_> {
    /// Returns what the server starts with, or why it ends. Files are changed as K3s changes them.
    pub(crate) async fn prepare(&self) -> Result<Result<Prepared, Fatal>> {
        let own = self.own_copy();
        let source = match &own {
            None => self.first_start().await,
            Some(own) => self.later_start(own).await,
        };
        let source = match source {
            Ok(source) => source,
            Err(fatal) => return Ok(Err(fatal)),
        };
        let joins_now = own.is_none() && matches!(source, Source::Remote(_));
        let exits_after = match &source {
            // Seen: 14 to 16 s through the join server, 9 to 11 s from its own copy, 20 s for a new member.
            Source::Remote(_) if joins_now => 20.0,
            Source::Remote(_) => 15.0,
            Source::Local(_) | Source::New => 10.0,
        };
        let (bundle, origin) = match &source {
            Source::New => (None, "new"),
            Source::Remote(bundle) => (Some(bundle), "remote"),
            Source::Local(bundle) => (Some(bundle), "local"),
        };
        if let Some(bundle) = bundle {
            if let Err(fatal) = self.reconcile(bundle)? {
                return Ok(Err(fatal));
            }
            let text = format!("Successfully reconciled with {origin} datastore");
            self.journal.line("info", &text);
        }
        if own.is_none() && self.settings.encryption && !joins_now {
            encryption::create(self.files)?;
        }
        let (token, logins) = self.write_logins()?;
        Ok(Ok(Prepared {
            token,
            logins,
            exits_after,
        }))
    }

    /// Its own copy of the datastore. On SQLite that is the datastore itself.
    fn own_copy(&self) -> Option<Contents> {
        if self.node.is_sqlite() {
            return Some(Datastore::of(self.node).read()).filter(|contents| !contents.bootstrap.is_empty());
        }
        if self.settings.disable_etcd {
            // It has none, but its files tell that it has joined.
            return self.files.token().map(|_| Contents::default());
        }
        Datastore::read_copy(&self.files.own_copy())
    }

    async fn first_start(&self) -> Result<Source, Fatal> {
        let Some(join) = &self.settings.server else {
            return Ok(Source::New);
        };
        let Some(token) = &self.settings.token else {
            return Err(Fatal::after(
                1.0,
                "Error: preparing server: failed to bootstrap cluster data: token is required to join a cluster",
            ));
        };
        let bundle = self.fetch(join, token).await.map_err(|error| {
            Fatal::after(
                2.0,
                format!("Error: preparing server: failed to bootstrap cluster data: {error}"),
            )
        })?;
        Ok(Source::Remote(bundle))
    }

    async fn later_start(&self, own: &Contents) -> Result<Source, Fatal> {
        if self.settings.disable_etcd {
            return self.control_plane_only().await;
        }
        // Only a configured token is sent to the join server.
        if let (Some(join), Some(token)) = (&self.settings.server, &self.settings.token) {
            match self.fetch(join, token).await {
                Ok(bundle) => return Ok(Source::Remote(bundle)),
                Err(error) => {
                    let text = format!("Unable to reconcile with remote datastore: {error}");
                    self.journal.line("warning", &text);
                }
            }
        }
        let token = self
            .settings
            .token
            .clone()
            .or_else(|| self.files.token())
            .unwrap_or_default();
        if token.is_empty() {
            return Err(Fatal::after(
                2.5,
                format!("Error: preparing server: failed to start cluster: {DIFFERENT_TOKEN}"),
            ));
        }
        self.journal.line("info", "Reconciling with local datastore");
        if own.bootstrap.len() > 1 {
            self.journal.line("warning", "found multiple bootstrap keys in storage");
        }
        match normalize(&token).ok().and_then(|password| own.open(password)) {
            Some(bundle) => Ok(Source::Local(bundle.clone())),
            None => Err(self.stale()),
        }
    }

    /// Seen with `disable-etcd`: the token is needed at each start, and the join server must accept it.
    async fn control_plane_only(&self) -> Result<Source, Fatal> {
        let (Some(join), Some(token)) = (&self.settings.server, &self.settings.token) else {
            return Err(Fatal {
                message: "panic: runtime error: invalid memory address or nil pointer dereference\n\
                          [signal SIGSEGV: segmentation violation]\n\n\
                          github.com/k3s-io/k3s/pkg/executor/embed.(*Embedded).ETCD(...)"
                    .to_owned(),
                after: 2.0,
                panic: true,
            });
        };
        let bundle = self.fetch(join, token).await.map_err(|error| {
            Fatal::after(
                2.0,
                format!("Error: preparing server: failed to bootstrap cluster data: {error}"),
            )
        })?;
        Ok(Source::Remote(bundle))
    }

    /// The configured token does not open the server's own copy. Nothing is written.
    fn stale(&self) -> Fatal {
        if self.node.is_sqlite() {
            let text = format!("Error: preparing server: failed to bootstrap cluster data: {DIFFERENT_TOKEN}");
            return Fatal::after(2.0, text);
        }
        match self.node.config.line {
            Line::Current => Fatal::after(
                2.5,
                format!(
                    "Error: preparing server: failed to bootstrap cluster data: failed to reconcile with local datastore: \
                     {DIFFERENT_TOKEN}"
                ),
            ),
            Line::Before => Fatal::after(
                8.0,
                format!("Failed to reconcile with temporary etcd: {DIFFERENT_TOKEN}"),
            ),
        }
    }

    /// The data of the join server, or the text of the error.
    async fn fetch(&self, join: &str, token: &str) -> Result<Bundle, String> {
        let password = normalize(token)?;
        let client = Client::new(join, self.ca_pem).map_err(|error| format!("{error:#}"))?;
        let path = format!("/v1-{}/server-bootstrap", self.node.program());
        let (status, body) = client
            .get(&path, Some(("server", password)), "k3s")
            .await
            .map_err(|error| format!("{error:#}"))?;
        match status {
            200 => serde_json::from_slice(&body).map_err(|error| error.to_string()),
            401 => Err("not authorized".into()),
            status => Err(format!("https request failed with status {status}")),
        }
    }

    fn reconcile(&self, bundle: &Bundle) -> Result<Result<(), Fatal>> {
        let comparison = self.files.compare(bundle);
        if !comparison.newer.is_empty() {
            let path = |name: &String| self.files.dir.join(name).display().to_string();
            let paths: Vec<String> = comparison.newer.iter().map(path).collect();
            return Ok(Err(Fatal::after(
                2.0,
                format!(
                    "{} newer than datastore and could cause a cluster outage. Remove the file(s) from disk and restart to be \
                     recreated from datastore.",
                    paths.join(", ")
                ),
            )));
        }
        for name in &comparison.outdated {
            let file = name.rsplit('/').next().unwrap_or(name);
            self.journal
                .line("warning", &format!("{file} will be updated from the datastore"));
        }
        self.files.replace(bundle, &comparison.outdated)?;
        Ok(Ok(()))
    }

    /// `genUsers`, and the files that every start writes: `cred/passwd` only if it changes, `server/token` always.
    fn write_logins(&self) -> Result<(String, Passwd)> {
        let mut passwd = self.files.passwd();
        let configured = self.settings.token.clone();
        let token = configured
            .or_else(|| passwd.password("server").map(str::to_owned))
            .unwrap_or_else(crate::random_hex);
        let program = self.node.program();
        let agent = match &self.settings.agent_token {
            Some(agent) => parse_full(agent).map_or(agent.as_str(), |(_, password)| password),
            None => parse_full(&token).map_or(token.as_str(), |(_, password)| password),
        };
        passwd.ensure("node", &format!("{program}:agent"), agent);
        passwd.ensure("server", &format!("{program}:server"), &token);
        self.files.write_passwd(&passwd)?;
        let password = normalize(&token).unwrap_or(&token);
        let agent = self.settings.agent_token.as_deref();
        self.files.write_token(self.ca_hash, password, agent)?;
        passwd.changed = false;
        Ok((token, passwd))
    }
}

/// The message of a start that fails when it saves.
pub(crate) fn save_failed() -> String {
    format!("Shutdown request received: \"failed to save bootstrap data: {DIFFERENT_TOKEN}\"")
}
