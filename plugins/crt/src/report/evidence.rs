//! Everything that can be seen of one cluster's registration, gathered with whatever rights and ways there are: what
//! cannot be seen becomes a [`Gap`] with its reason, not a failure.

use std::future::Future;
use std::time::Duration;

use client::error::Error;
use client::secret::{Fingerprint, Secret};
use rancher::agent::{self, Credentials, Deployment, Pod, StvAggregation};
use rancher::cluster::Cluster;
use rancher::token_storage::{self, TokenStorage};
use rancher::probe::ProbeResult;
use rancher::settings::Settings;
use rancher::token::{self, SYSTEM, Tokens};

use super::owners::{self, Owned};
use crate::rotation::observed::Address;
use crate::sides::{DOWNSTREAM, Downstream, MANAGEMENT, Sides};

/// With its agent gone, Rancher takes half a minute to say so; longer than this nobody wants to wait for a page.
const PATIENCE: Duration = Duration::from_secs(10);

/// What Rancher means by "cluster agent disconnected".
pub const NO_TUNNEL: &str = "the cluster's agent has no tunnel to Rancher";

/// Why something is not known, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap(pub String);

impl From<Error> for Gap {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        Self(text.strip_prefix("error: ").unwrap_or(&text).to_owned())
    }
}

/// What is seen, or why not.
pub type Seen<T> = Result<T, Gap>;

/// What is seen of one cluster.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Which of Rancher's two kinds of tokens it is.
    pub era: Seen<TokenStorage>,
    /// The cluster as Rancher keeps it.
    pub cluster: Cluster,
    /// Its registration tokens.
    pub tokens: Seen<Tokens>,
    /// The agent's Deployment.
    pub deployment: Seen<Option<Deployment>>,
    /// The agent's pods.
    pub pods: Seen<Vec<Pod>>,
    /// What the agent that connected last has written.
    pub record: Seen<Option<StvAggregation>>,
    /// The Secret that the Deployment names.
    pub credentials: Seen<Option<Credentials>>,
    /// What Rancher says of the token in it.
    pub result: Seen<ProbeResult>,
    /// What Rancher's settings say by now.
    pub settings: Settings,
    /// What else writes the agent's objects and `system`, and would write an old state back.
    pub owned: Seen<Vec<Owned>>,
    /// The version that a fresh call through Rancher's tunnel was answered with. `None`: there is no way to make one.
    pub call: Option<Seen<String>>,
}

impl Evidence {
    /// Looks at both sides.
    pub async fn gather(sides: &Sides) -> Self {
        let client = &sides.management.client;
        let from_downstream = Agent::look(sides.downstream.as_ref());
        let (era, tokens, agent, call) = futures::join!(
            token_storage::detect(client),
            token::list(client, &sides.cluster.id),
            from_downstream,
            fresh_call(sides.downstream.as_ref()),
        );
        let era = era.map_err(|error| error.on(MANAGEMENT).into());
        let (result, owned) = futures::join!(
            result(sides, &era, &agent.credentials),
            owned(sides, tokens.as_ref().ok(), &agent.deployment)
        );
        let Agent {
            deployment,
            pods,
            record,
            credentials,
        } = agent;
        Self {
            era,
            cluster: sides.cluster.clone(),
            tokens: tokens.map_err(|error| error.on(MANAGEMENT).into()),
            deployment,
            pods,
            record,
            credentials,
            result,
            settings: sides.settings.clone(),
            owned,
            call,
        }
    }

    /// The token that the agent's Deployment leads to.
    pub fn token(&self) -> Option<Fingerprint> {
        let credentials = self.credentials.as_ref().ok()?.as_ref()?;
        credentials.token.as_ref().map(Secret::fingerprint)
    }
}

/// The downstream half.
struct Agent {
    deployment: Seen<Option<Deployment>>,
    pods: Seen<Vec<Pod>>,
    record: Seen<Option<StvAggregation>>,
    credentials: Seen<Option<Credentials>>,
}

impl Agent {
    async fn look(downstream: Option<&Downstream>) -> Self {
        let Some(Downstream { server, .. }) = downstream else {
            let gap = Gap(format!(
                "there is no way to {DOWNSTREAM}; give one with --downstream-context"
            ));
            return Self {
                deployment: Err(gap.clone()),
                pods: Err(gap.clone()),
                record: Err(gap.clone()),
                credentials: Err(gap),
            };
        };
        let client = &server.client;
        let (deployment, pods, record) = futures::join!(
            patiently(agent::deployment(client)),
            patiently(agent::pods(client)),
            patiently(agent::stv_aggregation(client)),
        );
        let credentials = match &deployment {
            Err(_) => Err(Gap("which Secret the agent's Deployment names is not known".to_owned())),
            Ok(deployment) => match deployment.as_ref().and_then(|found| found.volume_secret.as_deref()) {
                None => Ok(None),
                Some(name) => patiently(agent::credentials(client, name)).await,
            },
        };
        Self {
            deployment,
            pods,
            record,
            credentials,
        }
    }
}

async fn patiently<T>(look: impl Future<Output = rancher::Result<T>>) -> Seen<T> {
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(seen) => seen.map_err(|error| {
            if error.is_agent_disconnected() {
                Gap(NO_TUNNEL.to_owned())
            } else {
                error.on(DOWNSTREAM).into()
            }
        }),
        Err(_) => Err(Gap(format!(
            "{DOWNSTREAM} did not answer within {}s",
            PATIENCE.as_secs()
        ))),
    }
}

async fn fresh_call(downstream: Option<&Downstream>) -> Option<Seen<String>> {
    let proxied = downstream?.proxied.as_ref()?;
    Some(patiently(agent::version(&proxied.client)).await)
}

async fn result(sides: &Sides, era: &Seen<TokenStorage>, credentials: &Seen<Option<Credentials>>) -> Seen<ProbeResult> {
    let era = era.clone()?;
    let token = credentials
        .as_ref()
        .ok()
        .and_then(|found| found.as_ref()?.token.clone());
    match token {
        Some(token) => Ok(sides.probe.looks(era, &token, 2).await),
        None => Err(Gap("the agent's token is not known".to_owned())),
    }
}

async fn owned(sides: &Sides, tokens: Option<&Tokens>, deployment: &Seen<Option<Deployment>>) -> Seen<Vec<Owned>> {
    let downstream = sides.downstream.as_ref().zip(deployment.as_ref().ok());
    let of_agent = async {
        match downstream {
            Some((downstream, deployment)) => {
                let secret = deployment.as_ref().and_then(|found| found.volume_secret.as_deref());
                owners::of_agent(downstream, secret).await
            }
            None => Ok(Vec::new()),
        }
    };
    let system = tokens.and_then(|tokens| tokens.named(SYSTEM));
    let (agent, tokens) = futures::try_join!(of_agent, owners::of_system(sides, system))?;
    let owned: Vec<_> = agent.into_iter().chain(tokens).collect();
    if downstream.is_none() && owned.is_empty() {
        return Err(Gap(format!(
            "what else manages the agent is unknown: {DOWNSTREAM} could not be reached"
        )));
    }
    Ok(owned)
}

/// Where Rancher's next push sends an agent.
pub fn pushed_address(settings: &Settings) -> Option<Address> {
    let url = settings.server_url.as_deref()?;
    Some(Address::of(Some(url), settings.ca_checksum().as_deref()))
}

/// What is different, as a clause, where `wanted`, Rancher's next push, would send the agent elsewhere or have it trust
/// another CA. The tunnel uses the URL in the agent's Secret, and its script checks the one in the Deployment (seen on
/// Rancher 2.15.0).
pub fn unpushed_address(
    deployment: &Deployment,
    secret: Option<&Credentials>,
    settings: &Settings,
    wanted: Address,
) -> Option<String> {
    let checksum = deployment.ca_checksum.as_deref();
    let of_template = deployment.server_url.as_deref();
    let of_secret = secret.and_then(|secret| secret.url.as_deref()).or(of_template);
    let different = |url| Address::of(url, checksum) != wanted;
    if !different(of_template) && !different(of_secret) {
        return None;
    }
    let now = of_template.unwrap_or("an unknown address");
    let next = settings.server_url.as_deref().unwrap_or("another address");
    Some(if now.trim_end_matches('/') != next.trim_end_matches('/') {
        format!("the agent connects to {now}, and Rancher's setting server-url says {next}")
    } else if of_secret == of_template {
        "the agent trusts another CA than Rancher's setting cacerts has".to_owned()
    } else {
        format!("the agent's Secret has another URL than {next}, Rancher's setting server-url")
    })
}
