//! Kubeconfig files as users have them: all data inline, one context per route to a cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig as KubeKubeconfig};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::pki::KeyPairPem;

/// How the user of a context authenticates.
#[derive(Clone)]
pub enum Identity {
    /// A client certificate.
    Certificate(KeyPairPem),
    /// A bearer token.
    Token(String),
    /// No credentials.
    Anonymous,
}

#[derive(Clone, Serialize, Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// A kubeconfig in memory.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(rename = "current-context")]
    current_context: String,
    clusters: Vec<Named>,
    users: Vec<Named>,
    contexts: Vec<Named>,
}

impl Default for Kubeconfig {
    fn default() -> Self {
        Self::new()
    }
}

impl Kubeconfig {
    /// A kubeconfig without contexts.
    pub fn new() -> Self {
        Self {
            api_version: "v1".into(),
            kind: "Config".into(),
            current_context: String::new(),
            clusters: Vec::new(),
            users: Vec::new(),
            contexts: Vec::new(),
        }
    }

    /// Reads a kubeconfig file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_saphyr::from_str(&text).with_context(|| format!("understand {}", path.display()))
    }

    /// Adds a context with a cluster and a user of the same name. The first context becomes the current one.
    #[must_use]
    pub fn context(mut self, name: &str, server: &str, ca_pem: &str, identity: &Identity) -> Self {
        let user = match identity {
            Identity::Certificate(pair) => json!({
                "client-certificate-data": STANDARD.encode(&pair.certificate),
                "client-key-data": STANDARD.encode(&pair.key),
            }),
            Identity::Token(token) => json!({ "token": token }),
            Identity::Anonymous => json!({}),
        };
        let cluster = json!({ "server": server, "certificate-authority-data": STANDARD.encode(ca_pem) });
        self.clusters.push(named(name, "cluster", cluster));
        self.users.push(named(name, "user", user));
        self.contexts
            .push(named(name, "context", json!({ "cluster": name, "user": name })));
        if self.current_context.is_empty() {
            name.clone_into(&mut self.current_context);
        }
        self
    }

    /// Makes `name` the current context.
    #[must_use]
    pub fn current(mut self, name: &str) -> Self {
        name.clone_into(&mut self.current_context);
        self
    }

    /// The server URLs, by cluster name.
    pub fn servers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.clusters
            .iter()
            .filter_map(|c| Some((c.name.as_str(), c.rest.get("cluster")?.get("server")?.as_str()?)))
    }

    /// Changes every cluster whose server is at or under `from` to the same path under `to`, with `ca_pem` as its CA.
    #[must_use]
    pub fn moved(mut self, from: &str, to: &str, ca_pem: &str) -> Self {
        for cluster in self.clusters.iter_mut().filter_map(|c| c.rest.get_mut("cluster")) {
            let Some(path) = cluster
                .get("server")
                .and_then(Value::as_str)
                .and_then(|s| under(s, from))
            else {
                continue;
            };
            let server = format!("{}{path}", to.trim_end_matches('/'));
            cluster["server"] = json!(server);
            cluster["certificate-authority-data"] = json!(STANDARD.encode(ca_pem));
        }
        self
    }

    /// Writes the file with mode 0600, and returns its path.
    pub fn write(&self, path: impl Into<PathBuf>) -> Result<PathBuf> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = path.into();
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        // JSON is valid YAML.
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        Ok(path)
    }
}

/// A client of the current context of a kubeconfig file.
pub(crate) async fn client(path: &Path) -> Result<Client> {
    let kubeconfig = KubeKubeconfig::read_from(path)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The rest of `server` after `from`, if `server` is `from` or a path under it.
fn under<'a>(server: &'a str, from: &str) -> Option<&'a str> {
    let path = server.strip_prefix(from.trim_end_matches('/'))?;
    (path.is_empty() || path.starts_with('/')).then_some(path)
}

fn named(name: &str, field: &str, value: Value) -> Named {
    Named {
        name: name.into(),
        rest: [(field.to_owned(), value)].into_iter().collect(),
    }
}
