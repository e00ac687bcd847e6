//! Credential plugins: the program in the `exec` section of a kubeconfig.
//!
//! A plugin may open a browser and ask for a password. So it runs once, for the first request that needs it, and again
//! only when its credential has expired or was rejected. Its output and its environment are never shown.
//! (kubernetes/client-go v0.33, `plugin/pkg/client/auth/exec/exec.go`.)

use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use k8s_openapi::jiff::Timestamp;
use kube::config::{Cluster, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use super::Trust;
use super::environment::Environment;
use super::identity::{Certificate, Credential, bearer};
use super::kubeconfig::non_empty;
use super::kuberc;
use crate::console::Console;
use crate::error::{Error, Kind, io_words, unreachable};
use crate::secret::Secret;
use crate::yaml;

/// The versions of the protocol. In `v1beta1`, `interactiveMode` is optional.
const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";

/// The cluster extension of a kubeconfig that contains configuration for the plugin.
const CLUSTER_EXTENSION: &str = "client.authentication.k8s.io/exec";

/// A credential plugin and its last credential.
pub(super) struct Plugin {
    command: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    version: String,
    mode: ExecInteractiveMode,
    install_hint: Option<String>,
    cluster: Option<Value>,
    console: Arc<dyn Console>,
    messages_suppressed: bool,
    cached: Mutex<CachedCredential>,
}

#[derive(Default)]
struct CachedCredential {
    credential: Option<Credential>,
    expires: Option<Timestamp>,
    runs: u64,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    pub(super) fn new(
        exec: ExecConfig,
        cluster: &Cluster,
        server: &Url,
        trust: &Trust,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let command = non_empty(exec.command).ok_or_else(|| {
            Error::failed("invalid configuration: command must be specified to use exec authentication plugin")
        })?;
        let version = non_empty(exec.api_version).unwrap_or_default();
        if version != V1 && version != V1BETA1 {
            return Err(Error::failed(format!("exec plugin: invalid apiVersion \"{version}\""))
                .hint(format!("supported versions: {V1}, {V1BETA1}")));
        }
        let mode = match exec.interactive_mode {
            Some(mode) => mode,
            None if version == V1BETA1 => ExecInteractiveMode::IfAvailable,
            None => {
                return Err(Error::failed(format!(
                    "invalid configuration: interactiveMode must be specified for {command} to use exec authentication plugin"
                )));
            }
        };
        kuberc::check(&command, environment)?;
        let own = exec.env.unwrap_or_default();
        let own = own
            .into_iter()
            .filter_map(|mut pair| Some((pair.remove("name")?, pair.remove("value")?)));
        let mut variables: Vec<(String, String)> = environment
            .variables()
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        variables.extend(own);
        Ok(Self {
            command,
            arguments: exec.args.unwrap_or_default(),
            variables,
            version,
            mode,
            install_hint: non_empty(exec.install_hint),
            cluster: exec.provide_cluster_info.then(|| cluster_info(cluster, server, trust)),
            console: Arc::clone(&environment.console),
            messages_suppressed: environment.plugin_messages_suppressed,
            cached: Mutex::default(),
        })
    }

    /// The cached credential, or that of a new run if it has expired. Concurrent requests wait for the same run.
    pub(super) async fn credential(&self) -> Result<Credential, Error> {
        let mut state = self.cached.lock().await;
        let expired = state.expires.is_some_and(|at| at <= Timestamp::now());
        if let Some(credential) = state.credential.as_ref().filter(|_| !expired) {
            return Ok(credential.clone());
        }
        let answer = self.run().await?;
        state.runs += 1;
        let credential = answer.credential(state.runs)?;
        state.expires = answer.expiration_timestamp;
        state.credential = Some(credential.clone());
        Ok(credential)
    }

    /// Drops the credential of that run, because a server rejected it. A later one is kept.
    pub(super) async fn forget(&self, generation: u64) {
        let mut state = self.cached.lock().await;
        if state.runs == generation {
            state.credential = None;
        }
    }

    async fn run(&self) -> Result<Status, Error> {
        let interactive = self.interactive()?;
        if self.console.verbosity() >= 4 {
            let command = &self.command;
            let line = format!("running credential plugin {command} (interactive: {interactive})");
            self.console.log(&line);
        }
        let mut spec = json!({ "interactive": interactive });
        if let Some(cluster) = &self.cluster {
            spec["cluster"] = cluster.clone();
        }
        let info = json!({ "apiVersion": self.version, "kind": "ExecCredential", "spec": spec });
        let _lent = self.console.lend_terminal();
        let output = tokio::process::Command::new(&self.command)
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("KUBERNETES_EXEC_INFO", info.to_string())
            .stdin(if interactive { Stdio::inherit() } else { Stdio::null() })
            // Its prompts ("open this address …") are for the user's eyes.
            .stderr(if self.messages_suppressed {
                Stdio::null()
            } else {
                Stdio::inherit()
            })
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| self.cannot_start(&error))?;
        if !output.status.success() {
            let how = match output.status.code() {
                Some(code) => format!("failed with exit code {code}"),
                None => "was killed".to_owned(),
            };
            return Err(self.failed(&how));
        }
        self.read(&output.stdout)
    }

    /// Whether the plugin may use stdin, or an error if it must and cannot.
    fn interactive(&self) -> Result<bool, Error> {
        let terminal = self.console.is_interactive();
        match self.mode {
            ExecInteractiveMode::Never => Ok(false),
            ExecInteractiveMode::IfAvailable => Ok(terminal),
            ExecInteractiveMode::Always if terminal => Ok(true),
            ExecInteractiveMode::Always => {
                Err(self.failed("cannot support interactive mode: standard input is not a terminal"))
            }
        }
    }

    fn read(&self, output: &[u8]) -> Result<Status, Error> {
        // YAML is a superset of JSON; plugins write either. What they wrote holds a credential and is never quoted.
        let text = zeroize::Zeroizing::new(String::from_utf8_lossy(output).into_owned());
        let answer: ExecCredential =
            yaml::from_str(&text).map_err(|_| self.failed("did not print an ExecCredential"))?;
        if answer.kind != "ExecCredential" || answer.api_version != self.version {
            return Err(self.failed(&format!("did not return an ExecCredential of {}", self.version)));
        }
        let status = answer
            .status
            .ok_or_else(|| self.failed("didn't return a status field"))?;
        match (&status.token, &status.client_certificate_data, &status.client_key_data) {
            (_, Some(_), None) | (_, None, Some(_)) => {
                Err(self.failed("returned only one of certificate and key, not both"))
            }
            (None, None, None) => Err(self.failed("didn't return a token or cert/key pair")),
            _ => Ok(status),
        }
    }

    fn failed(&self, how: &str) -> Error {
        let mut error = unreachable(format!("getting credentials: exec: executable {} {how}", self.command));
        error.kind = Kind::Unauthorized;
        error
    }

    fn cannot_start(&self, error: &std::io::Error) -> Error {
        if error.kind() != std::io::ErrorKind::NotFound {
            return self.failed(&format!("cannot be started: {}", io_words(error)));
        }
        let error = self
            .failed("not found")
            .hint("the kubeconfig names a credential plugin that is not installed");
        match &self.install_hint {
            Some(hint) => hint.trim().lines().fold(error, Error::hint),
            None => error,
        }
    }
}

/// What a plugin prints.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<Timestamp>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Status {
    fn credential(&self, generation: u64) -> Result<Credential, Error> {
        let authorization = self
            .token
            .as_deref()
            .filter(|token| !token.is_empty())
            .map(bearer)
            .transpose()?;
        let certificate = self.client_certificate_data.clone().zip(self.client_key_data.clone());
        let certificate = certificate.map(|(chain, key)| {
            Arc::new(Certificate {
                chain,
                key: Secret::new(key),
            })
        });
        Ok(Credential {
            authorization,
            certificate,
            generation,
        })
    }
}

/// `spec.cluster` of the question, for plugins that asked to know (`provideClusterInfo`).
fn cluster_info(cluster: &Cluster, server: &Url, trust: &Trust) -> Value {
    let mut info = json!({ "server": server.as_str().trim_end_matches('/') });
    if let Some(name) = &trust.server_name {
        info["tls-server-name"] = json!(name);
    }
    if trust.insecure {
        info["insecure-skip-tls-verify"] = json!(true);
    }
    if let Some(pem) = &trust.authority {
        info["certificate-authority-data"] = json!(base64::engine::general_purpose::STANDARD.encode(pem));
    }
    if let Some(proxy) = non_empty(cluster.proxy_url.clone()) {
        info["proxy-url"] = json!(proxy);
    }
    if let Some(true) = cluster.disable_compression {
        info["disable-compression"] = json!(true);
    }
    let extensions = cluster.extensions.iter().flatten();
    for named in extensions.filter(|named| named.name == CLUSTER_EXTENSION) {
        info["config"] = named.extension.clone();
    }
    info
}
