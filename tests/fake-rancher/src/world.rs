//! The shared state of the fake Rancher: both API servers and their objects, the tunnels, the timing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::address::{Addresses, Environment, Trust};
use crate::agent::{Agents, Credential};
use crate::api::{Api, read};
use crate::api_token::ApiTokens;
use crate::config::{Timing, TokenStorage, User};
use crate::deploy::Deployers;
use crate::identity::Shared;
use crate::index::Index;
use crate::log::Log;
use crate::planner::Planners;
use crate::registration::Registrars;
use crate::sessions::{Lack, Sessions, Tunnel};
use crate::store::{Cache, Kind};
use crate::token::NamePattern;

/// The agents' namespace, as a client sees it.
pub(crate) const AGENT_NAMESPACE: &str = "cattle-system";

/// The real namespace: all registered clusters share one API server.
pub(crate) fn agent_namespace(cluster: &str) -> String {
    format!("{AGENT_NAMESPACE}-{cluster}")
}

/// The cluster whose agents are in this namespace.
pub(crate) fn cluster_of(namespace: &str) -> Option<&str> {
    namespace.strip_prefix(AGENT_NAMESPACE)?.strip_prefix('-')
}

/// The state of a cluster beyond its objects.
#[derive(Clone, Copy)]
pub(crate) struct Traits {
    pub(crate) pattern: NamePattern,
    /// No connection is possible before this moment.
    pub(crate) offline_until: Option<Instant>,
    /// The duration of an apply of this cluster's agent, if it differs from the default.
    pub(crate) redeploy: Option<Duration>,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            pattern: NamePattern::Sha256,
            offline_until: None,
            redeploy: None,
        }
    }
}

pub(crate) struct World {
    storage: RwLock<TokenStorage>,
    /// The URL of the server, and the initial `server-url`.
    pub(crate) url: String,
    /// The CA of the server, and the initial `cacerts`.
    pub(crate) served_ca: String,
    pub(crate) addresses: Addresses,
    pub(crate) management: Api,
    pub(crate) downstream: Api,
    pub(crate) shared: Shared,
    pub(crate) log: Log,
    timing: RwLock<Timing>,
    pub(crate) users: RwLock<Vec<User>>,
    pub(crate) tokens: ApiTokens,
    pub(crate) clusters: Arc<Cache>,
    pub(crate) crts: Arc<Cache>,
    pub(crate) secrets: Arc<Cache>,
    pub(crate) settings: Arc<Cache>,
    pub(crate) features: Arc<Cache>,
    pub(crate) provisioning: Arc<Cache>,
    pub(crate) machines: Arc<Cache>,
    pub(crate) deployments: Arc<Cache>,
    pub(crate) pods: Arc<Cache>,
    pub(crate) downstream_secrets: Arc<Cache>,
    pub(crate) index: Arc<Index>,
    pub(crate) sessions: Sessions,
    pub(crate) agents: Agents,
    pub(crate) registrars: Registrars,
    pub(crate) deployers: Deployers,
    pub(crate) planners: Planners,
    traits: Mutex<HashMap<String, Traits>>,
    leader_back: watch::Sender<Option<Instant>>,
    serving: watch::Sender<bool>,
    pub(crate) version_in_default_only: bool,
    pub(crate) install_uuid: String,
}

/// The parameters of the shared state.
pub(crate) struct Parts {
    pub(crate) config: crate::config::Config,
    pub(crate) url: String,
    pub(crate) served_ca: String,
    pub(crate) management: Api,
    pub(crate) downstream: Api,
    pub(crate) shared: Shared,
    pub(crate) log: Log,
}

fn read_lock<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

impl World {
    /// Creates the shared state and starts to follow both API servers. Returns when everything was listed once.
    pub(crate) async fn start(parts: Parts) -> Arc<Self> {
        let (applied, mut changed) = mpsc::unbounded_channel();
        let timing = parts.config.timing;
        let world = Arc::new(Self {
            storage: RwLock::new(parts.config.storage),
            addresses: Addresses::new(&parts.url),
            url: parts.url,
            served_ca: parts.served_ca,
            management: parts.management,
            downstream: parts.downstream,
            shared: parts.shared,
            log: parts.log,
            timing: RwLock::new(timing),
            users: RwLock::new(parts.config.users),
            tokens: ApiTokens::default(),
            clusters: Cache::new(),
            crts: Cache::new(),
            secrets: Cache::new(),
            settings: Cache::new(),
            features: Cache::new(),
            provisioning: Cache::new(),
            machines: Cache::new(),
            deployments: Cache::new(),
            pods: Cache::new(),
            downstream_secrets: Cache::new(),
            index: Index::start(timing.replica_lag, applied),
            sessions: Sessions::new(),
            agents: Agents::default(),
            registrars: Registrars::default(),
            deployers: Deployers::default(),
            planners: Planners::default(),
            traits: Mutex::default(),
            leader_back: watch::Sender::new(None),
            serving: watch::Sender::new(true),
            version_in_default_only: parts.config.server_version_in_default_only,
            install_uuid: "3e527d52-0db4-4d39-bd48-49d0495c4833".to_owned(),
        });
        world.clone().wire();
        let this = world.clone();
        tokio::spawn(async move {
            while let Some(cluster) = changed.recv().await {
                this.note(&cluster);
            }
        });
        world.clone().watch().await;
        for cluster in world.clusters.all() {
            // Registered with an earlier process.
            world.sessions.arm(read::name(&cluster));
        }
        world
    }

    /// Subscribes the handlers of changes before the first change arrives.
    fn wire(self: Arc<Self>) {
        crate::registration::wire(&self);
        crate::deploy::wire(&self);
        crate::planner::wire(&self);
        crate::joining::wire(&self);
        crate::agent::wire(&self);
        let this = self.clone();
        let mut crts = self.crts.subscribe();
        let mut secrets = self.secrets.subscribe();
        let mut deployments = self.deployments.subscribe();
        let mut credentials = self.downstream_secrets.subscribe();
        let mut settings = self.settings.subscribe();
        let mut addresses = self.addresses.changed();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(change) = crts.recv() => this.index.crt(change.key, change.new.as_deref()),
                    Some(change) = secrets.recv() => this.index.secret(change.key, change.new.as_deref()),
                    Some(change) = deployments.recv() => this.note_namespace(&change.key.0),
                    Some(change) = credentials.recv() => this.note_namespace(&change.key.0),
                    Some(_) = settings.recv() => this.note_all(),
                    Ok(()) = addresses.changed() => this.note_all(),
                    else => return,
                }
            }
        });
    }

    async fn watch(self: Arc<Self>) {
        let kind = |group, version, name, plural| Kind {
            group,
            version,
            name,
            plural,
        };
        let all = || kube::runtime::watcher::Config::default();
        let rancher = |name, plural| kind("management.cattle.io", "v3", name, plural);
        let management = || self.management.client.clone();
        let downstream = || self.downstream.client.clone();
        self.settings
            .start(management(), &rancher("Setting", "settings"), all());
        self.features
            .start(management(), &rancher("Feature", "features"), all());
        self.clusters
            .start(management(), &rancher("Cluster", "clusters"), all());
        self.crts.start(
            management(),
            &rancher("ClusterRegistrationToken", "clusterregistrationtokens"),
            all(),
        );
        self.secrets
            .start(management(), &kind("", "v1", "Secret", "secrets"), all());
        let provisioning = kind("provisioning.cattle.io", "v1", "Cluster", "clusters");
        self.provisioning.start(management(), &provisioning, all());
        let machine = kind("cluster.x-k8s.io", "v1beta1", "Machine", "machines");
        self.machines.start(management(), &machine, all());
        for cache in [
            &self.settings,
            &self.provisioning,
            &self.machines,
            &self.features,
            &self.clusters,
            &self.crts,
            &self.secrets,
        ] {
            cache.ready().await;
        }
        // Only now, because a new pod is handled once, and its cluster must be known then.
        let agents = all().labels("app=cattle-cluster-agent");
        let named = all().fields("metadata.name=cattle-cluster-agent");
        let deployment = kind("apps", "v1", "Deployment", "deployments");
        self.downstream_secrets
            .start(downstream(), &kind("", "v1", "Secret", "secrets"), all());
        self.deployments.start(downstream(), &deployment, named);
        self.pods.start(downstream(), &kind("", "v1", "Pod", "pods"), agents);
        for cache in [&self.downstream_secrets, &self.deployments, &self.pods] {
            cache.ready().await;
        }
    }

    pub(crate) fn storage(&self) -> TokenStorage {
        read_lock(&self.storage)
    }

    pub(crate) fn set_storage(&self, storage: TokenStorage) {
        *self.storage.write().unwrap_or_else(std::sync::PoisonError::into_inner) = storage;
    }

    pub(crate) fn timing(&self) -> Timing {
        read_lock(&self.timing)
    }

    pub(crate) fn change_timing(&self, change: impl FnOnce(&mut Timing)) {
        change(&mut self.timing.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    pub(crate) fn traits(&self, cluster: &str) -> Traits {
        let traits = self.traits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        traits.get(cluster).copied().unwrap_or_default()
    }

    pub(crate) fn change_traits(&self, cluster: &str, change: impl FnOnce(&mut Traits)) {
        let mut traits = self.traits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(traits.entry(cluster.to_owned()).or_default());
    }

    /// A setting as Rancher reads it: `value`, else `default` (`pkg/settings/setting.go`, 2.15.0).
    pub(crate) fn setting(&self, name: &str) -> String {
        let Some(setting) = self.settings.get("", name) else {
            return String::new();
        };
        let value = read::text(&setting, "/value");
        if value.is_empty() {
            read::text(&setting, "/default")
        } else {
            value
        }
        .to_owned()
    }

    pub(crate) fn cluster(&self, id: &str) -> Option<Arc<Value>> {
        self.clusters.get("", id)
    }

    /// No controller acts for this long: the leader is gone and the next one is not elected yet.
    pub(crate) fn leader_gap(&self, gap: Duration) {
        self.leader_back.send_replace(Some(Instant::now() + gap));
    }

    /// Returns when there is a leader. Every controller asks before it acts.
    pub(crate) async fn leader(&self) {
        let mut changed = self.leader_back.subscribe();
        loop {
            let back = *changed.borrow_and_update();
            match back.filter(|back| *back > Instant::now()) {
                None => return,
                Some(back) => tokio::select! {
                    () = tokio::time::sleep_until(back) => {}
                    _ = changed.changed() => {}
                },
            }
        }
    }

    /// Sets whether tunnels can be opened. They cannot while the server is replaced.
    pub(crate) fn serve_tunnels(&self, serving: bool) {
        self.serving.send_replace(serving);
    }

    /// Returns when the server accepts tunnels.
    pub(crate) async fn serves_tunnels(&self) {
        // The sender is in `self`: waiting cannot fail.
        let _ = self.serving.subscribe().wait_for(|serving| *serving).await;
    }

    fn note_namespace(&self, namespace: &str) {
        if let Some(cluster) = cluster_of(namespace) {
            self.note(cluster);
        }
    }

    fn note_all(&self) {
        for cluster in self.clusters.all() {
            self.note(read::name(&cluster));
        }
    }

    /// Checks what a cluster is without, and records it.
    pub(crate) fn note(&self, cluster: &str) {
        if self
            .cluster(cluster)
            .is_none_or(|cluster| cluster["spec"]["internal"] == true)
        {
            return;
        }
        let mut lacks = Vec::new();
        if self.sessions.oldest(Tunnel::Agent, cluster).is_none() {
            lacks.push(Lack::Tunnel);
        }
        if self.sessions.oldest(Tunnel::Steve, cluster).is_none() {
            lacks.push(Lack::Steve);
        }
        if !self.agents.any_admitted(self, cluster) {
            lacks.push(Lack::ValidToken);
        }
        if !self.is_restart_safe(cluster) {
            lacks.push(Lack::RestartSafety);
        }
        for (lack, began) in self.sessions.note(cluster, &lacks) {
            let kind = if began { "without" } else { "with" };
            self.log.line(kind, json!({"cluster": cluster, "what": lack}));
        }
    }

    /// Whether an agent that started now from the Deployment would be accepted.
    fn is_restart_safe(&self, cluster: &str) -> bool {
        let deployment = self.deployments.get(&agent_namespace(cluster), "cattle-cluster-agent");
        deployment.is_some_and(|deployment| {
            let spec = &deployment["spec"]["template"]["spec"];
            mounted_secret(spec).is_some_and(|name| self.would_start(cluster, &Environment::of(spec), &name))
        })
    }

    /// Whether an agent with this environment and this Secret would be accepted.
    pub(crate) fn would_start(&self, cluster: &str, environment: &Environment, secret: &str) -> bool {
        let secret = self.downstream_secrets.get(&agent_namespace(cluster), secret);
        let credential = secret.as_deref().and_then(Credential::read);
        let trust = self.start_check(environment);
        credential
            .zip(trust.ok())
            .is_some_and(|(credential, trust)| self.admits(cluster, &credential, &trust))
    }

    /// Whether an agent with this credential would be accepted.
    pub(crate) fn admits(&self, cluster: &str, credential: &Credential, trust: &Trust) -> bool {
        self.connect_check(&credential.url, trust).is_ok()
            && self.index.admits(self.storage(), cluster, &credential.token)
    }
}

/// The Secret behind the volume `cattle-credentials` of a pod.
pub(crate) fn mounted_secret(pod_spec: &Value) -> Option<String> {
    let volumes = pod_spec["volumes"].as_array()?;
    let volume = volumes.iter().find(|volume| volume["name"] == "cattle-credentials")?;
    volume["secret"]["secretName"].as_str().map(str::to_owned)
}

/// A variable of a pod's first container.
pub(crate) fn variable(pod_spec: &Value, name: &str) -> Option<String> {
    let env = pod_spec["containers"][0]["env"].as_array()?;
    env.iter().find(|entry| entry["name"] == name)?["value"]
        .as_str()
        .map(str::to_owned)
}
