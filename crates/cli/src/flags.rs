//! kubectl's connection flags, one set for all plugins.
//!
//! kubectl refuses flags before the plugin's name, so every plugin has to know them all. A flag that is given but empty
//! counts as absent, as it does for kubectl. Each flag carries kubectl's own sentence (1.36, `kubectl options`).

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, StringValueParser, TypedValueParser};
use client::connection::{Connection, ConnectionOptions, ContextCluster, Environment};
use client::duration;
use client::error::Error;
use client::sanitize::shell_word;
use client::secret::Secret;

/// kubectl's connection flags. Flatten them into a plugin's root command.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection options")]
pub struct ConnectionFlags {
    /// Path to the kubeconfig file to use for CLI requests
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

    /// If present, the namespace scope for this CLI request
    #[arg(short = 'n', long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// The address and port of the Kubernetes API server
    #[arg(short = 's', long, global = true, value_name = "URL")]
    pub server: Option<String>,

    /// Bearer token for authentication to the API server. It is visible in the process list: prefer a kubeconfig
    #[arg(long, global = true, value_name = "TOKEN", value_parser = secret())]
    pub token: Option<Secret>,

    /// Server name to use for server certificate validation. If it is not provided, the hostname used to contact the server is
    /// used
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,

    /// If true, the server's certificate will not be checked for validity. This will make your HTTPS connections insecure
    #[arg(long, global = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub insecure_skip_tls_verify: Option<bool>,

    /// Path to a cert file for the certificate authority
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub certificate_authority: Option<String>,

    /// Path to a client certificate file for TLS
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub client_certificate: Option<String>,

    /// Path to a client key file for TLS
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub client_key: Option<String>,

    /// Username to impersonate for the operation. User could be a regular user or a service account in a namespace
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,

    /// UID to impersonate for the operation
    #[arg(long = "as-uid", global = true, value_name = "UID")]
    pub impersonate_uid: Option<String>,

    /// Group to impersonate for the operation, this flag can be repeated to specify multiple groups
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub impersonate_groups: Vec<String>,

    /// User extras to impersonate for the operation, this flag can be repeated to specify multiple values for the same key
    #[arg(long = "as-user-extra", global = true, value_name = "KEY=VALUE")]
    pub impersonate_extra: Vec<String>,

    /// The length of time to wait before giving up on a single server request. Non-zero values should contain a corresponding
    /// time unit (e.g. 1s, 2m, 3h). A value of zero means don't timeout requests
    #[arg(long, global = true, value_name = "DURATION", default_value = "0", value_parser = timeout)]
    pub request_timeout: Duration,

    /// Also send tokens to servers at http:// addresses, where anyone on the network can read them
    #[arg(long, global = true)]
    pub allow_plain_http: bool,

    /// If true, opt-out of response compression for all requests to the server
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
        self.options().load(environment)
    }

    /// Every context of the kubeconfig whose cluster has an address and a CA. Reads files, sends nothing.
    pub fn contexts(&self, environment: &Environment) -> Result<Vec<ContextCluster>, Error> {
        self.options().contexts(environment)
    }

    /// The values of the flags.
    pub(crate) fn options(&self) -> ConnectionOptions {
        let flags = self.clone();
        ConnectionOptions {
            kubeconfig: flags.kubeconfig,
            context: flags.context,
            cluster: flags.cluster,
            user: flags.user,
            namespace: flags.namespace,
            server: flags.server,
            token: flags.token,
            tls_server_name: flags.tls_server_name,
            insecure_skip_tls_verify: flags.insecure_skip_tls_verify,
            certificate_authority: flags.certificate_authority,
            client_certificate: flags.client_certificate,
            client_key: flags.client_key,
            impersonate: flags.impersonate,
            impersonate_uid: flags.impersonate_uid,
            impersonate_groups: flags.impersonate_groups,
            impersonate_extra: flags.impersonate_extra,
            request_timeout: flags.request_timeout,
            allow_plain_http: flags.allow_plain_http,
            disable_compression: flags.disable_compression,
        }
    }

    /// The flags that lead to the same server as the same user, as the user would type them, each after a space. --token is left out,
    /// since it is a secret.
    pub(crate) fn typed(&self) -> String {
        let mut flags = String::new();
        let kubeconfig = self.kubeconfig.as_ref().map(|path| path.to_string_lossy());
        append(&mut flags, "--kubeconfig", kubeconfig.as_deref());
        append(&mut flags, "--context", self.context.as_deref());
        if self.insecure_skip_tls_verify == Some(true) {
            flags.push_str(" --insecure-skip-tls-verify");
        }
        if self.allow_plain_http {
            flags.push_str(" --allow-plain-http");
        }
        for (flag, value) in [
            ("--cluster", &self.cluster),
            ("--user", &self.user),
            ("--server", &self.server),
            ("--tls-server-name", &self.tls_server_name),
            ("--certificate-authority", &self.certificate_authority),
            ("--client-certificate", &self.client_certificate),
            ("--client-key", &self.client_key),
            ("--as", &self.impersonate),
            ("--as-uid", &self.impersonate_uid),
        ] {
            append(&mut flags, flag, value.as_deref());
        }
        let groups = self.impersonate_groups.iter().map(|group| ("--as-group", group));
        let extras = self.impersonate_extra.iter().map(|extra| ("--as-user-extra", extra));
        for (flag, value) in groups.chain(extras) {
            append(&mut flags, flag, Some(value));
        }
        flags
    }

    /// The same for a command of kubectl itself, which lacks our own flag.
    pub(crate) fn typed_for_kubectl(&self) -> String {
        let flags = Self {
            allow_plain_http: false,
            ..self.clone()
        };
        flags.typed()
    }

    /// The same flags pointed at another context of the same kubeconfig: what else was given (server, user, token, …)
    /// belongs to the first side and is left out. Impersonation holds on every side.
    #[must_use]
    pub fn for_context(&self, context: &str) -> Self {
        Self {
            kubeconfig: self.kubeconfig.clone(),
            context: Some(context.to_owned()),
            impersonate: self.impersonate.clone(),
            impersonate_uid: self.impersonate_uid.clone(),
            impersonate_groups: self.impersonate_groups.clone(),
            impersonate_extra: self.impersonate_extra.clone(),
            request_timeout: self.request_timeout,
            allow_plain_http: self.allow_plain_http,
            disable_compression: self.disable_compression,
            ..Self::default()
        }
    }
}

/// Adds a flag as the user would type it, where it has a value. A value that starts with a dash would be taken for a flag.
pub(crate) fn append(flags: &mut String, flag: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        let between = if value.starts_with('-') { '=' } else { ' ' };
        let _ = write!(flags, " {flag}{between}{}", shell_word(value));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        connection: ConnectionFlags,
    }

    fn flags(arguments: &[&str]) -> ConnectionFlags {
        Cli::try_parse_from([&["test"], arguments].concat()).unwrap().connection
    }

    #[test]
    fn a_flag_that_is_given_but_empty_is_absent() {
        let given = [
            "--context=",
            "--cluster=",
            "--user=",
            "-n",
            "",
            "--server=",
            "--token=",
            "--kubeconfig=",
            "--as=",
            "--request-timeout=",
        ];
        let flags = flags(&given);
        assert!(flags.request_timeout.is_zero());
        let connection = flags.load(&Environment::silent()).unwrap();
        assert_eq!((connection.context(), connection.namespace()), (None, "default"));
    }

    #[test]
    fn bare_integers_are_seconds_for_the_request_timeout() {
        for (text, seconds) in [("30", 30), ("1m", 60), ("0", 0), ("0s", 0)] {
            let flags = flags(&["--request-timeout", text]);
            assert_eq!(flags.request_timeout, Duration::from_secs(seconds), "{text}");
        }
        assert!(Cli::try_parse_from(["test", "--request-timeout=soon"]).is_err());
    }

    #[test]
    fn every_flag_reaches_the_connection() {
        let flags = flags(&[
            "--kubeconfig=/k",
            "--context=c",
            "--cluster=l",
            "--user=u",
            "-n=n",
            "-s=https://s",
            "--token=hunter2hunter2",
            "--tls-server-name=t",
            "--insecure-skip-tls-verify",
            "--certificate-authority=/a",
            "--client-certificate=/b",
            "--client-key=/d",
            "--as=bob",
            "--as-uid=1",
            "--as-group=g",
            "--as-user-extra=k=v",
            "--request-timeout=5",
            "--allow-plain-http",
            "--disable-compression=false",
        ]);
        let options = format!("{:?}", flags.options());
        assert_eq!(
            format!("{flags:?}").replace("ConnectionFlags", "ConnectionOptions"),
            options
        );
        assert!(!options.contains("None") && !options.contains("[]"), "{options}");
    }

    #[test]
    fn another_context_takes_over_only_what_is_common() {
        let other = flags(&[
            "--kubeconfig=/x",
            "--context=a",
            "--server=https://s",
            "--token=t",
            "--request-timeout=5",
            "--as=jane",
            "--as-group=oncall",
        ])
        .for_context("b");
        // Or a command would act as two users.
        assert_eq!(
            (other.impersonate.as_deref(), other.impersonate_groups),
            (Some("jane"), vec!["oncall".to_owned()])
        );
        assert_eq!(
            (other.context.as_deref(), other.server, other.token),
            (Some("b"), None, None)
        );
        assert_eq!(
            (other.kubeconfig, other.request_timeout),
            (Some("/x".into()), Duration::from_secs(5))
        );
    }
}
