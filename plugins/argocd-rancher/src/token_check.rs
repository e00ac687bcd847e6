//! Checks a token by calls as Argo CD makes them: at Rancher, through Rancher to the cluster, and for the permissions that Argo CD
//! needs there.

use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use argocd::rights::{self, SyncAccess, WatchScope};
use argocd::{ClusterConfig, ClusterSecret, ServerUrl};
use cli::ui::{Stream, Tone, Ui};
use client::access::Right;
use client::connection::Server;
use client::error::Error;
use client::sanitize;
use client::secret::Secret;
use rancher::ClusterId;
use rancher::api_token::Credential;
use rancher::api_token::proof::{self, CallResult};
use rancher::proxy::through;
use serde::Serialize;

use crate::address::RancherAddress as _;
use crate::connections::{Argo, Rancher};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    rancher: Duration,
    proxy: Duration,
}

impl Timeouts {
    /// Long enough for Rancher to report a disconnected agent.
    pub(crate) const LONG: Self = Self {
        rancher: Duration::from_secs(15),
        proxy: proof::PATIENCE,
    };
    /// For calls that are repeated: a disconnected agent is reported as a timeout.
    pub(crate) const SHORT: Self = Self {
        rancher: Duration::from_secs(4),
        proxy: Duration::from_secs(5),
    };
}

/// The results of all calls.
#[derive(Debug)]
pub(crate) struct TokenResults {
    /// Of the call to Rancher.
    pub rancher: CallResult,
    /// Of the calls through Rancher and the agent. `None`: not made, because Rancher rejects the token.
    pub proxy: Option<CallResult>,
    /// The permissions that Argo CD needs and the token's owner lacks. `None`: not checked, because the cluster did not respond.
    pub missing: Option<Result<Vec<Right>, Error>>,
}

/// The status of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckStatus {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// It could not be determined.
    Unknown,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CheckResult {
    /// `secret`, `rancher`, `proxy`, `rights`, `sync` or `argocd`.
    pub name: &'static str,
    pub status: CheckStatus,
    /// What was found, in a sentence.
    pub message: String,
}

impl CheckResult {
    /// The result of the check `name`.
    pub(crate) fn new(name: &'static str, status: CheckStatus, message: impl Into<String>) -> Self {
        Self {
            name,
            status,
            message: message.into(),
        }
    }

    fn of_call(name: &'static str, result: &CallResult) -> Self {
        let status = match result {
            CallResult::Accepted { .. } => CheckStatus::Passed,
            CallResult::Unavailable { .. } | CallResult::Unreachable(_) | CallResult::Unexpected { .. } => {
                CheckStatus::Unknown
            }
            _ => CheckStatus::Failed,
        };
        let message = match result {
            CallResult::Unreachable(error) => format!("{result}: {}", root_cause(error.as_ref())),
            other => other.to_string(),
        };
        Self::new(name, status, message)
    }

    /// The line on a page: a symbol, the name and the message.
    pub(crate) fn line(&self, ui: &Ui) -> String {
        let (symbol, ascii, tone) = match self.status {
            CheckStatus::Passed => ("✔", "+", Tone::Good),
            CheckStatus::Failed => ("✖", "x", Tone::Bad),
            CheckStatus::Unknown => ("?", "?", Tone::Caution),
        };
        let symbol = if ui.terminal().utf8 { symbol } else { ascii };
        format!(
            "{} {:<8}{}",
            ui.paint(Stream::Out, tone, symbol),
            self.name,
            sanitize::cell(&self.message)
        )
    }
}

/// A token to check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenCheck<'a> {
    pub server: &'a ServerUrl,
    /// How Argo CD verifies the certificate there.
    pub config: &'a ClusterConfig,
    pub token: &'a Secret,
    /// What Argo CD watches in the cluster.
    pub scope: WatchScope<'a>,
    pub timeouts: Timeouts,
}

impl<'a> TokenCheck<'a> {
    /// A token for an existing cluster Secret.
    pub(crate) fn of(cluster: &'a ClusterSecret, config: &'a ClusterConfig, token: &'a Secret) -> Self {
        Self {
            server: &cluster.server,
            config,
            token,
            scope: WatchScope {
                namespaces: &cluster.namespaces,
                cluster_resources: cluster.cluster_resources,
            },
            timeouts: Timeouts::LONG,
        }
    }

    /// Calls Rancher only.
    pub(crate) async fn at_rancher(&self, argo: &Argo, rancher: Option<&Rancher>) -> Result<CallResult, Error> {
        let (base, cluster) = self.server.require_rancher()?;
        let server = argo.as_argocd(base.url(), self.config, self.token, rancher)?;
        Ok(self.calls(&cluster).rancher(&server, self.is_api_token()).await)
    }

    /// The same over a new connection.
    pub(crate) async fn at_rancher_anew(&self, argo: &Argo, rancher: Option<&Rancher>) -> Result<CallResult, Error> {
        let (base, cluster) = self.server.require_rancher()?;
        let server = argo.as_argocd_anew(base.url(), self.config, self.token, rancher)?;
        Ok(self.calls(&cluster).rancher(&server, self.is_api_token()).await)
    }

    /// Calls Rancher, and through Rancher the cluster. The first result that is not a success.
    pub(crate) async fn reach(&self, argo: &Argo, rancher: Option<&Rancher>) -> Result<CallResult, Error> {
        let (base, cluster) = self.server.require_rancher()?;
        let server = argo.as_argocd(base.url(), self.config, self.token, rancher)?;
        let calls = self.calls(&cluster);
        let alone = calls.rancher(&server, self.is_api_token()).await;
        if !alone.is_accepted() {
            return Ok(alone);
        }
        Ok(proof::through_proxy(&server.client, &cluster, self.timeouts.proxy).await)
    }

    /// Makes all calls, each only if those before it do not explain its failure.
    pub(crate) async fn run(&self, argo: &Argo, rancher: Option<&Rancher>) -> Result<TokenResults, Error> {
        let (base, cluster) = self.server.require_rancher()?;
        let server = argo.as_argocd(base.url(), self.config, self.token, rancher)?;
        Ok(self.calls(&cluster).run(&server, self.is_api_token()).await)
    }

    /// What a sync may change with it.
    pub(crate) async fn sync_access(&self, argo: &Argo, rancher: Option<&Rancher>) -> Result<SyncAccess, Error> {
        let (base, cluster) = self.server.require_rancher()?;
        let server = argo.as_argocd(base.url(), self.config, self.token, rancher)?;
        let through = through_rancher(&server, &cluster);
        in_time(self.timeouts.proxy, Box::pin(rights::sync_access(&through, self.scope))).await
    }

    /// Rancher accepts the token of a ServiceAccount at its proxy only.
    fn is_api_token(&self) -> bool {
        Credential::of(self.token) != Credential::ServiceAccount
    }

    fn calls(&self, cluster: &'a ClusterId) -> Calls<'a> {
        Calls {
            cluster,
            scope: self.scope,
            timeouts: self.timeouts,
        }
    }
}

/// The calls with a credential of Rancher, for one cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls<'a> {
    pub cluster: &'a ClusterId,
    pub scope: WatchScope<'a>,
    pub timeouts: Timeouts,
}

impl Calls<'_> {
    async fn rancher(&self, server: &Server, is_api_token: bool) -> CallResult {
        if is_api_token {
            proof::alone(&server.client, self.cluster, self.timeouts.rancher).await
        } else {
            proof::through_proxy(&server.client, self.cluster, self.timeouts.proxy).await
        }
    }

    /// All of them. `server`: Rancher's own URL with the credential.
    pub(crate) async fn run(&self, server: &Server, is_api_token: bool) -> TokenResults {
        let mut results = TokenResults {
            rancher: self.rancher(server, is_api_token).await,
            proxy: None,
            missing: None,
        };
        if results.rancher.is_rejected() || !is_api_token && !results.rancher.is_accepted() {
            return results;
        }
        let proxy = proof::through_proxy(&server.client, self.cluster, self.timeouts.proxy).await;
        if proxy.is_accepted() {
            let through = through_rancher(server, self.cluster);
            results.missing = Some(in_time(self.timeouts.proxy, rights::missing(&through, self.scope)).await);
        }
        results.proxy = Some(proxy);
        results
    }
}

/// A cluster, through this Rancher.
fn through_rancher(server: &Server, cluster: &ClusterId) -> Server {
    Server {
        client: through(&server.client, cluster),
        ..server.clone()
    }
}

async fn in_time<T>(timeout: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let done = tokio::time::timeout(timeout, work).await;
    done.unwrap_or_else(|_| Err(Error::failed("the cluster did not respond in time")))
}

impl TokenResults {
    /// Every check has passed.
    pub(crate) fn all_passed(&self) -> bool {
        self.checks().iter().all(|check| check.status == CheckStatus::Passed)
    }

    /// Rancher accepts the token, and the only failure is that the cluster cannot be reached.
    pub(crate) fn lack_the_cluster_only(&self) -> bool {
        let absent = |result: &CallResult| matches!(result, CallResult::AgentOffline | CallResult::NoAnswer { .. });
        self.rancher.is_accepted() && self.proxy.as_ref().is_some_and(absent)
    }

    /// The only failure is that the token's owner lacks permissions.
    pub(crate) fn lack_rights_only(&self) -> bool {
        let is_accepted = self.rancher.is_accepted() && self.proxy.as_ref().is_some_and(CallResult::is_accepted);
        is_accepted && matches!(&self.missing, Some(Ok(missing)) if !missing.is_empty())
    }

    /// The only failure is one that is overridden: by the checks `offline` and `rights`.
    pub(crate) fn are_overridden(&self, offline: bool, rights: bool) -> bool {
        offline && self.lack_the_cluster_only() || rights && self.lack_rights_only()
    }

    /// The messages of the checks that have not passed.
    pub(crate) fn failures(&self) -> String {
        let failed = self.checks().into_iter();
        let failed = failed.filter(|check| check.status != CheckStatus::Passed);
        failed.map(|check| check.message).collect::<Vec<_>>().join("; ")
    }

    /// The results, one check each.
    pub(crate) fn checks(&self) -> Vec<CheckResult> {
        let mut checks = vec![CheckResult::of_call("rancher", &self.rancher)];
        checks.extend(self.proxy.as_ref().map(|proxy| CheckResult::of_call("proxy", proxy)));
        let rights = |status, message| CheckResult::new("rights", status, message);
        checks.extend(self.missing.as_ref().map(|missing| match missing {
            Ok(missing) if missing.is_empty() => rights(
                CheckStatus::Passed,
                "its owner can list and watch everything that Argo CD watches".to_owned(),
            ),
            Ok(missing) => rights(CheckStatus::Failed, lacking(missing)),
            Err(error) => rights(CheckStatus::Unknown, error.to_string()),
        }));
        checks
    }
}

/// The first few, and how many more.
fn lacking(missing: &[Right]) -> String {
    const LISTED: usize = 4;
    let listed: Vec<String> = missing.iter().take(LISTED).map(Right::to_string).collect();
    let more = match missing.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("its owner cannot {}{more}", listed.join(", "))
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
