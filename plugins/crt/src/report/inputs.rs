//! Collects the inputs of a diagnosis, as far as permissions and routes allow. What cannot be read becomes [`Unavailable`] with its
//! reason, not an error.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use client::error::Error;
use client::redact::without_user_info;
use client::secret::{Fingerprint, Secret};
use rancher::TokenStorage;
use rancher::agent::{self, Credentials, Deployment, Pod, StvAggregation};
use rancher::cluster::{Cluster, ClusterKind};
use rancher::probe::ProbeResult;
use rancher::provisioned::{self, Machine, MachinePlan};
use rancher::settings::Settings;
use rancher::token::{self, SYSTEM, Tokens};
use rancher::token_storage;

use super::owners::{self, Owned};
use crate::connections::{Connections, DOWNSTREAM, Downstream, MANAGEMENT};
use crate::rotation::observed::Address;

/// Rancher takes half a minute to report a disconnected agent, which is too long for a page.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The meaning of Rancher's "cluster agent disconnected".
pub(crate) const NOT_CONNECTED: &str = "the cluster's agent is not connected to Rancher";

/// Why something is unknown, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable(pub(crate) String);

impl From<Error> for Unavailable {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        Self(text.strip_prefix("error: ").unwrap_or(&text).to_owned())
    }
}

/// What was read, or why it could not be.
pub(crate) type Collected<T> = Result<T, Unavailable>;

/// The inputs of a diagnosis of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct DiagnosisInputs {
    /// Where Rancher keeps the values of registration tokens.
    pub(crate) storage: Collected<TokenStorage>,
    /// The cluster in Rancher.
    pub(crate) cluster: Cluster,
    /// Its registration tokens.
    pub(crate) tokens: Collected<Tokens>,
    /// The agent's Deployment.
    pub(crate) deployment: Collected<Option<Deployment>>,
    /// The agent's pods.
    pub(crate) pods: Collected<Vec<Pod>>,
    /// What the agent that connected last has written.
    pub(crate) record: Collected<Option<StvAggregation>>,
    /// The Secret that the Deployment names.
    pub(crate) credentials: Collected<Option<Credentials>>,
    /// What Rancher answers to the token in it.
    pub(crate) probe: Collected<ProbeResult>,
    /// Rancher's current settings.
    pub(crate) settings: Settings,
    /// What else writes the agent's objects and `system`, and would restore an old state.
    pub(crate) owned: Collected<Vec<Owned>>,
    /// The Kubernetes version, by a call through Rancher's tunnel; nothing of a hosted cluster, whose agent is asked itself. `None`: there is
    /// no route through Rancher.
    pub(crate) call: Option<Collected<Option<String>>>,
    /// The machines of a cluster that Rancher provisioned.
    pub(crate) machines: Collected<Vec<Machine>>,
    /// The plans of its control-plane machines.
    pub(crate) plans: Collected<BTreeMap<String, MachinePlan>>,
}

impl DiagnosisInputs {
    /// Reads both clusters. `limit`: how long one answer of the downstream cluster may take.
    pub(crate) async fn collect(connections: &Connections, limit: Duration) -> Self {
        let client = &connections.management.client;
        let (storage, tokens, agent, call, machines, plans) = futures::join!(
            token_storage::detect(client),
            token::list(client, &connections.cluster.id),
            AgentObjects::read(connections.downstream.as_ref(), limit),
            call(connections, limit),
            machines(connections),
            plans(connections),
        );
        let storage = storage.map_err(|error| error.on(MANAGEMENT).into());
        let (probe, owned) = futures::join!(
            probe(connections, &storage, &agent.credentials),
            owned(connections, tokens.as_ref().ok(), &agent.deployment)
        );
        let AgentObjects {
            deployment,
            pods,
            record,
            credentials,
        } = agent;
        Self {
            storage,
            cluster: connections.cluster.clone(),
            tokens: tokens.map_err(|error| error.on(MANAGEMENT).into()),
            deployment,
            pods,
            record,
            credentials,
            probe,
            settings: connections.settings.clone(),
            owned,
            call,
            machines,
            plans,
        }
    }

    /// The token of the Secret that the agent's Deployment names.
    pub(crate) fn token(&self) -> Option<Fingerprint> {
        let credentials = self.credentials.as_ref().ok()?.as_ref()?;
        credentials.token.as_ref().map(Secret::fingerprint)
    }
}

/// What is read on the downstream cluster.
struct AgentObjects {
    deployment: Collected<Option<Deployment>>,
    pods: Collected<Vec<Pod>>,
    record: Collected<Option<StvAggregation>>,
    credentials: Collected<Option<Credentials>>,
}

impl AgentObjects {
    async fn read(downstream: Option<&Downstream>, limit: Duration) -> Self {
        let Some(Downstream { server, .. }) = downstream else {
            let why = Unavailable(format!(
                "no route to {DOWNSTREAM}; pass a context of it with --downstream-context"
            ));
            return Self {
                deployment: Err(why.clone()),
                pods: Err(why.clone()),
                record: Err(why.clone()),
                credentials: Err(why),
            };
        };
        let client = &server.client;
        let (deployment, pods, record) = futures::join!(
            with_timeout(limit, agent::deployment(client)),
            with_timeout(limit, agent::pods(client)),
            with_timeout(limit, agent::stv_aggregation(client)),
        );
        let credentials = match &deployment {
            Err(_) => Err(Unavailable("the agent's Deployment is unknown".to_owned())),
            Ok(deployment) => match deployment.as_ref().and_then(|found| found.volume_secret.as_deref()) {
                None => Ok(None),
                Some(name) => with_timeout(limit, agent::credentials(client, name)).await,
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

async fn with_timeout<T>(limit: Duration, read: impl Future<Output = rancher::Result<T>>) -> Collected<T> {
    match tokio::time::timeout(limit, read).await {
        Ok(read) => read.map_err(|error| {
            if error.is_agent_disconnected() {
                Unavailable(NOT_CONNECTED.to_owned())
            } else {
                error.on(DOWNSTREAM).into()
            }
        }),
        Err(_) => Err(Unavailable(format!(
            "no response from {DOWNSTREAM} within {}s",
            limit.as_secs()
        ))),
    }
}

/// Rancher answers for a hosted cluster without an agent.
async fn call(connections: &Connections, limit: Duration) -> Option<Collected<Option<String>>> {
    let proxied = connections.downstream.as_ref()?.proxied.as_ref()?;
    let call = async {
        match connections.cluster.kind {
            ClusterKind::Hosted(_) => agent::own_api(&proxied.client).await.map(|()| None),
            _ => agent::version(&proxied.client).await.map(Some),
        }
    };
    Some(with_timeout(limit, call).await)
}

async fn machines(connections: &Connections) -> Collected<Vec<Machine>> {
    match &connections.provisioning {
        Some(cluster) => {
            let read = provisioned::machines(&connections.management.client, cluster).await;
            read.map_err(|error| error.on(MANAGEMENT).into())
        }
        None => Ok(Vec::new()),
    }
}

async fn plans(connections: &Connections) -> Collected<BTreeMap<String, MachinePlan>> {
    match &connections.provisioning {
        Some(cluster) => {
            let read = provisioned::plans(&connections.management.client, cluster).await;
            read.map_err(|error| error.on(MANAGEMENT).into())
        }
        None => Ok(BTreeMap::new()),
    }
}

async fn probe(
    connections: &Connections,
    storage: &Collected<TokenStorage>,
    credentials: &Collected<Option<Credentials>>,
) -> Collected<ProbeResult> {
    let storage = storage.clone()?;
    let token = credentials
        .as_ref()
        .ok()
        .and_then(|found| found.as_ref()?.token.clone());
    match token {
        Some(token) => Ok(connections.probe.check_times(storage, &token, 2).await),
        None => Err(Unavailable("the agent's token is unknown".to_owned())),
    }
}

async fn owned(
    connections: &Connections,
    tokens: Option<&Tokens>,
    deployment: &Collected<Option<Deployment>>,
) -> Collected<Vec<Owned>> {
    let downstream = connections.downstream.as_ref().zip(deployment.as_ref().ok());
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
    let (agent, tokens) = futures::try_join!(of_agent, owners::of_system(connections, system))?;
    let owned: Vec<_> = agent.into_iter().chain(tokens).collect();
    if downstream.is_none() && owned.is_empty() {
        return Err(Unavailable(format!(
            "what manages the agent is unknown: cannot reach {DOWNSTREAM}"
        )));
    }
    Ok(owned)
}

/// Where Rancher's next push sends an agent.
pub(crate) fn pushed_address(settings: &Settings) -> Option<Address> {
    let url = settings.server_url.as_deref()?;
    Some(Address::of(Some(url), settings.ca_checksum().as_deref()))
}

/// The difference, as a clause, if `wanted`, Rancher's next push, would send the agent elsewhere or make it trust another CA. The
/// tunnel uses the URL in the agent's Secret; the agent's script checks the one in the Deployment (seen on Rancher 2.15.0).
pub(crate) fn unpushed_address(
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
    let now = of_template.map_or_else(|| "an unknown address".to_owned(), without_user_info);
    let next = settings.server_url.as_deref();
    let next = next.map_or_else(|| "another address".to_owned(), without_user_info);
    let is_next = |url: &str| url.trim_end_matches('/') == next.trim_end_matches('/');
    let url = if !is_next(&now) {
        Some(format!(
            "the agent connects to {now}, but Rancher's setting server-url is {next}"
        ))
    } else if of_secret.is_some_and(|url| !is_next(url)) {
        Some(format!(
            "the URL in the agent's Secret is not {next}, Rancher's setting server-url"
        ))
    } else {
        None
    };
    let next = settings.ca_checksum();
    let ca = (checksum.unwrap_or_default() != next.as_deref().unwrap_or_default()).then(|| match (checksum, &next) {
        (_, None) => "the agent trusts a CA of its own, but Rancher's setting cacerts is empty".to_owned(),
        (None, Some(_)) => "the agent trusts the CAs of its system, but Rancher's setting cacerts has one".to_owned(),
        (Some(_), Some(_)) => "the agent trusts another CA than the one in Rancher's setting cacerts".to_owned(),
    });
    let differences: Vec<String> = url.into_iter().chain(ca).collect();
    Some(if differences.is_empty() {
        "Rancher's setting server-url or cacerts has just been changed".to_owned()
    } else {
        differences.join(", and ")
    })
}
