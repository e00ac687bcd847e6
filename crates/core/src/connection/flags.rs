//! kubectl's connection flags, one set for all plugins.
//!
//! kubectl refuses flags before the plugin's name, so every plugin has to know them all. A flag that is given but empty
//! counts as absent, as it does for kubectl.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, StringValueParser, TypedValueParser};

use super::environment::Environment;
use super::kubeconfig::Merged;
use super::{Connection, resolve};
use crate::duration;
use crate::error::Error;
use crate::secret::Secret;

/// kubectl's connection flags. Flatten them into a plugin's root command.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection options")]
pub struct ConnectionFlags {
    /// Path to the kubeconfig file to use
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath, value_parser = path())]
    pub kubeconfig: Option<PathBuf>,

    /// The name of the kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// The name of the kubeconfig cluster to use
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,

    /// The name of the kubeconfig user to use
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,

    /// The namespace to work in
    #[arg(short = 'n', long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// The address and port of the Kubernetes API server
    #[arg(short = 's', long, global = true, value_name = "URL")]
    pub server: Option<String>,

    /// Bearer token for the API server; it is visible in the process list, prefer a kubeconfig
    #[arg(long, global = true, value_name = "TOKEN", value_parser = secret())]
    pub token: Option<Secret>,

    /// Server name to use for the validation of the server's certificate
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,

    /// Do not check the server's certificate; the connection can then be tampered with
    #[arg(long, global = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub insecure_skip_tls_verify: Option<bool>,

    /// Path to a certificate file of the certificate authority
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub certificate_authority: Option<String>,

    /// Path to a client certificate file for TLS
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub client_certificate: Option<String>,

    /// Path to a client key file for TLS
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub client_key: Option<String>,

    /// Username to impersonate
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,

    /// UID to impersonate
    #[arg(long = "as-uid", global = true, value_name = "UID")]
    pub impersonate_uid: Option<String>,

    /// Group to impersonate; can be repeated
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub impersonate_groups: Vec<String>,

    /// Extra of the user to impersonate; can be repeated
    #[arg(long = "as-user-extra", global = true, value_name = "KEY=VALUE")]
    pub impersonate_extra: Vec<String>,

    /// Time to wait for one request (5s, 2m, or seconds); 0 waits without end
    #[arg(long, global = true, value_name = "DURATION", default_value = "0", value_parser = timeout)]
    pub request_timeout: Duration,

    /// Do not ask the server for compressed answers
    #[arg(long, global = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub disable_compression: Option<bool>,
}

/// clap's own parser of paths refuses an empty one.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Of a type whose `Debug` shows nothing; it accepts everything, so that clap has no reason to quote it.
fn secret() -> impl TypedValueParser<Value = Secret> {
    StringValueParser::new().map(Secret::new)
}

fn timeout(text: &str) -> Result<Duration, duration::NotADuration> {
    if text.is_empty() {
        Ok(Duration::ZERO)
    } else {
        duration::parse(text)
    }
}

impl ConnectionFlags {
    /// Finds the API server and the identity as kubectl would. Reads files, sends nothing.
    pub fn load(&self, environment: &Environment) -> Result<Connection, Error> {
        resolve::resolve(self, environment)
    }

    /// The names that a kubeconfig has for the value of a flag: contexts for `--context` and any flag of a plugin that
    /// ends so, clusters and users for theirs; `None` for other flags. For completion: what cannot be read has no names.
    pub(crate) fn names_for(&self, flag: &str, environment: &Environment) -> Option<Vec<String>> {
        let explicit = self.kubeconfig.as_deref().filter(|path| !path.as_os_str().is_empty());
        let merged = || Merged::load(explicit, environment).unwrap_or_default();
        match flag {
            "cluster" => Some(merged().clusters.into_iter().map(|(name, _)| name).collect()),
            "user" => Some(merged().users.into_iter().map(|(name, _)| name).collect()),
            flag if flag.ends_with("context") => Some(merged().contexts.into_iter().map(|(name, _)| name).collect()),
            _ => None,
        }
    }

    /// The same flags pointed at another context of the same kubeconfig: what else was given (server, user, token, …)
    /// belongs to the first side and is left out.
    #[must_use]
    pub fn for_context(&self, context: &str) -> Self {
        Self {
            kubeconfig: self.kubeconfig.clone(),
            context: Some(context.to_owned()),
            request_timeout: self.request_timeout,
            disable_compression: self.disable_compression,
            ..Self::default()
        }
    }
}
