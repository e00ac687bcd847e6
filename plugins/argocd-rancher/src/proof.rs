//! What a token is good for, shown by calls that are made with it as Argo CD makes them: alone, through Rancher to the
//! cluster, and whether it may look at everything that Argo CD looks at.

use std::error::Error as StdError;
use std::time::Duration;

use argocd::rights::{self, Extent};
use argocd::{ClusterConfig, ClusterSecret, ServerUrl};
use cli::ui::{Stream, Tone, Ui};
use client::access::Right;
use client::connection::Server;
use client::error::Error;
use client::sanitize;
use client::secret::Secret;
use rancher::api_token::proof::{self, CallResult};
use rancher::proxy::through;
use rancher::reach::RancherUrl;
use serde::Serialize;

use crate::address::RancherAddress as _;
use crate::sides::{Argo, Rancher};

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    alone: Duration,
    proxy: Duration,
}

impl Patience {
    /// As long as Rancher may take to say that an agent is offline; at Rancher itself answers come at once.
    pub(crate) const LONG: Self = Self {
        alone: Duration::from_secs(15),
        proxy: proof::PATIENCE,
    };
    /// For somebody who will ask again: an agent that is offline is one that does not answer.
    pub(crate) const SHORT: Self = Self {
        alone: Duration::from_secs(4),
        proxy: Duration::from_secs(5),
    };
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Proofs {
    /// At Rancher alone.
    pub alone: CallResult,
    /// Through Rancher and the agent; `None`: not tried, since the token is dead.
    pub proxy: Option<CallResult>,
    /// The rights that Argo CD needs and the token's owner lacks. `None`: not asked, since the cluster does not answer.
    pub missing: Option<Result<Vec<Right>, Error>>,
}

/// How one point stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// It could not be seen.
    Unknown,
}

/// One point of a proof.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Point {
    /// `secret`, `alone`, `proxy`, `rights`, `argocd`.
    pub name: &'static str,
    /// How it stands.
    pub status: Mark,
    /// Why, in a sentence.
    pub message: String,
}

impl Point {
    /// A point.
    pub(crate) fn new(name: &'static str, status: Mark, message: impl Into<String>) -> Self {
        Self {
            name,
            status,
            message: message.into(),
        }
    }

    /// As a line for people: a mark, a word and a sentence.
    pub(crate) fn line(&self, ui: &Ui) -> String {
        let (glyph, plain, tone) = match self.status {
            Mark::Good => ("✔", "+", Tone::Good),
            Mark::Bad => ("✖", "x", Tone::Bad),
            Mark::Unknown => ("?", "?", Tone::Caution),
        };
        let mark = if ui.terminal().utf8 { glyph } else { plain };
        format!(
            "{} {:<8}{}",
            ui.paint(Stream::Out, tone, mark),
            self.name,
            sanitize::cell(&self.message)
        )
    }
}

/// What is to be proven.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial<'a> {
    /// Where the cluster is served.
    pub server: &'a ServerUrl,
    /// How Argo CD trusts it.
    pub config: &'a ClusterConfig,
    /// What it calls with.
    pub token: &'a Secret,
    /// What it looks at.
    pub extent: Extent<'a>,
    /// How long each answer may take.
    pub patience: Patience,
}

impl<'a> Trial<'a> {
    /// Of what stands in a Secret. `None`: there is no token in it, or it does not lead through Rancher.
    pub(crate) fn of(cluster: &'a ClusterSecret, config: &'a ClusterConfig, token: &'a Secret) -> Self {
        Self {
            server: &cluster.server,
            config,
            token,
            extent: Extent {
                namespaces: &cluster.namespaces,
                cluster_resources: cluster.cluster_resources,
            },
            patience: Patience::LONG,
        }
    }

    /// Only whether Rancher knows the token.
    pub(crate) async fn alone(&self, argo: &Argo, rancher: Option<&Rancher>) -> Result<CallResult, Error> {
        let (base, cluster) = self.place()?;
        let server = argo.as_argocd(base.url(), self.config, self.token, rancher)?;
        Ok(proof::alone(&server.client, &cluster, self.patience.alone).await)
    }

    /// The same over a connection of its own.
    pub(crate) async fn alone_anew(&self, argo: &Argo, rancher: Option<&Rancher>) -> Result<CallResult, Error> {
        let (base, cluster) = self.place()?;
        let server = argo.as_argocd_anew(base.url(), self.config, self.token, rancher)?;
        Ok(proof::alone(&server.client, &cluster, self.patience.alone).await)
    }

    /// Everything, in the order in which a failure explains those that follow.
    pub(crate) async fn run(&self, argo: &Argo, rancher: Option<&Rancher>) -> Result<Proofs, Error> {
        let alone = self.alone(argo, rancher).await?;
        if alone.is_rejected() {
            return Ok(Proofs {
                alone,
                proxy: None,
                missing: None,
            });
        }
        let (base, cluster) = self.place()?;
        let at_rancher = argo.as_argocd(base.url(), self.config, self.token, rancher)?;
        let proxy = proof::through_proxy(&at_rancher.client, &cluster, self.patience.proxy).await;
        let missing = if proxy.is_accepted() {
            let through = Server {
                client: through(&at_rancher.client, &cluster),
                url: base.cluster(&cluster),
                ..at_rancher
            };
            Some(self.missing(&through).await)
        } else {
            None
        };
        Ok(Proofs {
            alone,
            proxy: Some(proxy),
            missing,
        })
    }

    async fn missing(&self, through: &Server) -> Result<Vec<Right>, Error> {
        let asked = tokio::time::timeout(self.patience.proxy, rights::missing(through, self.extent)).await;
        asked.unwrap_or_else(|_| Err(Error::failed("the cluster did not answer in time")))
    }

    fn place(&self) -> Result<(RancherUrl, rancher::ClusterId), Error> {
        let place = self.server.rancher();
        place.ok_or_else(|| Error::failed(format!("{} does not lead through Rancher", self.server)))
    }
}

impl Proofs {
    /// The token is alive, reaches its cluster and may do what Argo CD does.
    pub(crate) fn are_good(&self) -> bool {
        self.points().iter().all(|point| point.status == Mark::Good)
    }

    /// Nothing but that the cluster cannot be reached just now stands against it.
    pub(crate) fn lack_the_cluster_only(&self) -> bool {
        let absent = |standing: &CallResult| matches!(standing, CallResult::AgentOffline | CallResult::NoAnswer { .. });
        self.alone.is_accepted() && self.proxy.as_ref().is_some_and(absent)
    }

    /// Nothing but rights stand against it.
    pub(crate) fn lack_rights_only(&self) -> bool {
        let works = self.alone.is_accepted() && self.proxy.as_ref().is_some_and(CallResult::is_accepted);
        works && matches!(&self.missing, Some(Ok(missing)) if !missing.is_empty())
    }

    /// What is not as it should be, in a sentence.
    pub(crate) fn against(&self) -> String {
        let points = self.points().into_iter();
        let wrong: Vec<String> = points
            .filter(|point| point.status != Mark::Good)
            .map(|point| point.message)
            .collect();
        wrong.join("; ")
    }

    /// Point by point.
    pub(crate) fn points(&self) -> Vec<Point> {
        let mut points = vec![Point::new("alone", mark(&self.alone), words(&self.alone))];
        if let Some(proxy) = &self.proxy {
            points.push(Point::new("proxy", mark(proxy), words(proxy)));
        }
        match &self.missing {
            None => {}
            Some(Ok(missing)) if missing.is_empty() => points.push(Point::new(
                "rights",
                Mark::Good,
                "its owner may list and watch everything that Argo CD looks at",
            )),
            Some(Ok(missing)) => points.push(Point::new("rights", Mark::Bad, lacking(missing))),
            Some(Err(error)) => points.push(Point::new("rights", Mark::Unknown, error.to_string())),
        }
        points
    }
}

/// The first few, and how many more.
fn lacking(missing: &[Right]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = missing.iter().take(SHOWN).map(Right::to_string).collect();
    let more = missing.len().saturating_sub(SHOWN);
    let more = if more > 0 {
        format!(", and {more} more")
    } else {
        String::new()
    };
    format!("its owner may not {}{more}", shown.join(", "))
}

fn mark(standing: &CallResult) -> Mark {
    match standing {
        CallResult::Accepted { .. } => Mark::Good,
        CallResult::Unavailable { .. } | CallResult::Unreachable(_) | CallResult::Unexpected { .. } => Mark::Unknown,
        _ => Mark::Bad,
    }
}

/// In a sentence; of what could not be reached, why.
fn words(standing: &CallResult) -> String {
    match standing {
        CallResult::Unreachable(error) => format!("{standing}: {}", root(error.as_ref())),
        other => other.to_string(),
    }
}

fn root(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
