//! The values of kubectl's connection flags.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::environment::Environment;
use super::kubeconfig::Merged;
use super::{Connection, resolve};
use crate::error::Error;
use crate::secret::Secret;

/// kubectl's connection flags. An empty value counts as absent, as in kubectl.
#[derive(Clone, Debug, Default)]
pub struct ConnectionOptions {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--context`
    pub context: Option<String>,
    /// `--cluster`
    pub cluster: Option<String>,
    /// `--user`
    pub user: Option<String>,
    /// `--namespace`
    pub namespace: Option<String>,
    /// `--server`
    pub server: Option<String>,
    /// `--token`
    pub token: Option<Secret>,
    /// `--tls-server-name`
    pub tls_server_name: Option<String>,
    /// `--insecure-skip-tls-verify`
    pub insecure_skip_tls_verify: Option<bool>,
    /// `--certificate-authority`, a path
    pub certificate_authority: Option<String>,
    /// `--client-certificate`, a path
    pub client_certificate: Option<String>,
    /// `--client-key`, a path
    pub client_key: Option<String>,
    /// `--as`
    pub impersonate: Option<String>,
    /// `--as-uid`
    pub impersonate_uid: Option<String>,
    /// `--as-group`
    pub impersonate_groups: Vec<String>,
    /// `--as-user-extra`, each `KEY=VALUE`
    pub impersonate_extra: Vec<String>,
    /// `--request-timeout`; zero waits without end
    pub request_timeout: Duration,
    /// `--allow-plain-http`
    pub allow_plain_http: bool,
    /// `--disable-compression`
    pub disable_compression: Option<bool>,
}

/// A context of a kubeconfig, and the cluster that it leads to.
#[derive(Clone, Debug)]
pub struct ContextCluster {
    /// The name of the context.
    pub name: String,
    /// The address of the API server.
    pub server: Url,
    /// The CA that the kubeconfig has for it, PEM.
    pub authority: String,
}

impl ConnectionOptions {
    /// Determines the API server and the identity as kubectl does. Reads files, sends nothing.
    pub fn load(&self, environment: &Environment) -> Result<Connection, Error> {
        resolve::resolve(self, environment)
    }

    /// Every context of the kubeconfig whose cluster has an address and a CA. Reads files, sends nothing.
    pub fn contexts(&self, environment: &Environment) -> Result<Vec<ContextCluster>, Error> {
        let explicit = self.kubeconfig.as_deref().filter(|path| !path.as_os_str().is_empty());
        Ok(resolve::contexts(&Merged::load(explicit, environment)?))
    }

    /// The completion candidates for the value of a flag: contexts for `--context` and other flags that end in
    /// `context`, clusters and users for their flags; `None` for other flags. Files that cannot be read have no
    /// candidates.
    pub fn names_for(&self, flag: &str, environment: &Environment) -> Option<Vec<String>> {
        let explicit = self.kubeconfig.as_deref().filter(|path| !path.as_os_str().is_empty());
        let merged = || Merged::load(explicit, environment).unwrap_or_default();
        match flag {
            "cluster" => Some(merged().clusters.into_iter().map(|(name, _)| name).collect()),
            "user" => Some(merged().users.into_iter().map(|(name, _)| name).collect()),
            flag if flag.ends_with("context") => Some(merged().contexts.into_iter().map(|(name, _)| name).collect()),
            _ => None,
        }
    }
}
