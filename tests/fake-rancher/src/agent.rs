//! Rancher's cluster agent, one for each real running pod of the real Deployment. It reads its credential once, at its
//! start, from the Secret that its pod mounts, holds two tunnels while the pod runs, and deletes old credential
//! Secrets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::address::{Environment, Trust};
use crate::api::{ApiResult, paths, read};
use crate::sessions::{Session, Tunnel};
use crate::token::fingerprint;
use crate::world::{World, agent_namespace, cluster_of, mounted_secret, variable};

const STV: &str = "stv-aggregation";

/// What an agent has read from its volume.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) token: String,
    pub(crate) url: String,
}

impl Credential {
    /// The data of the Secret behind the volume.
    pub(crate) fn read(secret: &Value) -> Option<Self> {
        Some(Self {
            token: read::secret(secret, "token")?,
            url: read::secret(secret, "url")?,
        })
    }
}

/// The visible state of an agent.
struct Handle {
    home: String,
    pod: String,
    /// The Secret behind its volume.
    mounts: Option<String>,
    environment: Environment,
    /// The credential in memory, from its start to its end.
    held: Mutex<Option<(Credential, Trust)>>,
    /// Set when the pod ends.
    ended: watch::Sender<bool>,
    /// Changes when both tunnels are closed from outside. They may reopen at that time.
    cut: watch::Sender<(u64, Option<Instant>)>,
    created: String,
}

/// All agents, by pod uid.
#[derive(Default)]
pub(crate) struct Agents(Mutex<HashMap<String, Arc<Handle>>>);

impl Agents {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Handle>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether one of the running agents of a cluster holds, or is about to read, a valid credential.
    pub(crate) fn any_admitted(&self, world: &World, cluster: &str) -> bool {
        self.of(cluster).iter().any(|handle| {
            if let Some((credential, trust)) = handle.held() {
                return world.admits(cluster, &credential, &trust);
            }
            let secret = handle.mounts.as_deref();
            secret.is_some_and(|secret| world.would_start(cluster, &handle.environment, secret))
        })
    }

    fn of(&self, cluster: &str) -> Vec<Arc<Handle>> {
        let mut all: Vec<_> = self
            .lock()
            .values()
            .filter(|handle| handle.home == cluster)
            .cloned()
            .collect();
        all.sort_by(|a, b| (&a.created, &a.pod).cmp(&(&b.created, &b.pod)));
        all
    }

    /// The pods of a cluster's agents with their credentials, oldest first.
    pub(crate) fn report(&self, cluster: &str) -> Vec<Value> {
        let show = |handle: &Arc<Handle>| {
            let held = handle.held().map(|(credential, _)| credential);
            let fingerprint = held.as_ref().map(|credential| fingerprint(&credential.token));
            let url = held.map(|credential| credential.url);
            json!({"pod": handle.pod, "fingerprint": fingerprint, "url": url, "created": handle.created})
        };
        self.of(cluster).iter().map(show).collect()
    }
}

impl Handle {
    fn held(&self) -> Option<(Credential, Trust)> {
        self.held
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn hold(&self, credential: Credential, trust: Trust) {
        *self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((credential, trust));
    }

    /// The tunnels may not reopen before this time.
    fn may_open(&self) -> Option<Instant> {
        self.cut.borrow().1
    }
}

/// Follows the real pods.
pub(crate) fn wire(world: &Arc<World>) {
    let mut pods = world.pods.subscribe();
    let world = world.clone();
    tokio::spawn(async move {
        while let Some(change) = pods.recv().await {
            let Some(home) = cluster_of(&change.key.0).map(str::to_owned) else {
                continue;
            };
            match change.new.as_deref().filter(|pod| !has_ended(pod)) {
                Some(pod) if runs(pod) => start(&world, &home, pod),
                Some(_) => {}
                None => {
                    if let Some(pod) = change.new.as_deref().or(change.old.as_deref()) {
                        end(&world, pod);
                    }
                }
            }
        }
    });
}

/// A pod counts from the moment it is Ready, because then its Deployment removes the old one. With a fake runtime, its
/// phase becomes Running a moment later.
fn runs(pod: &Value) -> bool {
    let started = read::text(pod, "/status/phase") == "Running" || read::condition(pod, "Ready") == "True";
    started && !has_ended(pod) && pod["metadata"]["deletionTimestamp"].is_null()
}

/// The process has ended: all its containers have, or the pod failed. The agent of a terminating pod works until then.
fn has_ended(pod: &Value) -> bool {
    let containers = pod["status"]["containerStatuses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let terminated = !containers.is_empty() && containers.iter().all(|c| !c["state"]["terminated"].is_null());
    matches!(read::text(pod, "/status/phase"), "Succeeded" | "Failed") || terminated
}

fn end(world: &World, pod: &Value) {
    let handle = world.agents.lock().remove(read::text(pod, "/metadata/uid"));
    if let Some(handle) = handle {
        handle.ended.send_replace(true);
        world
            .log
            .line("agent-ended", json!({"cluster": handle.home, "pod": handle.pod}));
        world.note(&handle.home);
    }
}

fn start(world: &Arc<World>, home: &str, pod: &Value) {
    // Several fake Ranchers may share one downstream API server. Each serves its own registered clusters.
    if world.cluster(home).is_none() {
        return;
    }
    let uid = read::text(pod, "/metadata/uid").to_owned();
    let mut all = world.agents.lock();
    if all.contains_key(&uid) {
        return;
    }
    let handle = Arc::new(Handle {
        home: home.to_owned(),
        pod: read::name(pod).to_owned(),
        mounts: mounted_secret(&pod["spec"]),
        environment: Environment::of(&pod["spec"]),
        held: Mutex::new(None),
        ended: watch::Sender::new(false),
        cut: watch::Sender::new((0, None)),
        created: read::text(pod, "/metadata/creationTimestamp").to_owned(),
    });
    all.insert(uid, handle.clone());
    drop(all);
    world.note(home);
    let spec = pod["spec"].clone();
    let world = world.clone();
    tokio::spawn(async move {
        let agent = Agent {
            world,
            handle: handle.clone(),
            spec,
            joined: watch::Sender::new(false),
        };
        let mut ended = handle.ended.subscribe();
        tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => {}
            () = agent.run() => {}
        }
    });
}

/// The process in a pod.
struct Agent {
    world: Arc<World>,
    handle: Arc<Handle>,
    spec: Value,
    /// Set after the first connection, which starts the steve client.
    joined: watch::Sender<bool>,
}

/// Closes its tunnel when the agent's task ends, however that happens.
struct Held<'a>(&'a World, Arc<Session>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.sessions.close(&self.1);
        let Session {
            cluster,
            pod,
            fingerprint,
            tunnel,
            ..
        } = self.1.as_ref();
        self.0.log.line(
            "tunnel-closed",
            json!({"cluster": cluster, "tunnel": tunnel.name(), "pod": pod, "fingerprint": fingerprint}),
        );
        self.0.note(cluster);
    }
}

impl Agent {
    async fn run(self) {
        tokio::time::sleep(self.world.timing().agent_start).await;
        let trust = self.check_server().await;
        let credential = self.read_first().await;
        self.world.log.line(
            "agent-started",
            json!({
                "cluster": self.handle.home, "pod": self.handle.pod, "fingerprint": fingerprint(&credential.token),
            }),
        );
        self.handle.hold(credential.clone(), trust.clone());
        self.world.note(&self.handle.home);
        tokio::join!(
            self.keep_agent_tunnel(&credential, &trust),
            self.keep_steve_tunnel(&trust),
            self.clean_hourly()
        );
    }

    fn namespace(&self) -> String {
        agent_namespace(&self.handle.home)
    }

    async fn mounted(&self) -> Option<Credential> {
        let name = mounted_secret(&self.spec)?;
        let secret = self
            .world
            .downstream
            .get(&paths::secret(&self.namespace(), &name))
            .await
            .ok()??;
        Credential::read(&secret)
    }

    /// The checks before the agent itself. A container that exits there is restarted. Its pod is Ready for a moment
    /// each time (seen on Rancher 2.15.0); here it stays Ready.
    async fn check_server(&self) -> Trust {
        let mut said = String::new();
        loop {
            self.reachable().await;
            match self.world.start_check(&self.handle.environment) {
                Ok(trust) => return trust,
                Err(why) if why != said => {
                    let line = json!({"cluster": self.handle.home, "pod": self.handle.pod, "why": why});
                    self.world.log.line("agent-exited", line);
                    said = why;
                }
                Err(_) => {}
            }
            tokio::time::sleep(self.world.timing().agent_retry).await;
        }
    }

    /// Token and server are read once, before the loop (`cmd/agent/main.go`, 2.12.0 and 2.15.0). Until the Secret is there
    /// the kubelet would hold the container back.
    async fn read_first(&self) -> Credential {
        loop {
            if let Some(credential) = self.mounted().await {
                return credential;
            }
            tokio::time::sleep(self.world.timing().agent_retry).await;
        }
    }

    /// Returns when the server can be reached and nothing holds this pod back.
    async fn reachable(&self) {
        loop {
            self.world.serves_tunnels().await;
            let offline = self.world.traits(&self.handle.home).offline_until;
            let Some(until) = offline
                .max(self.handle.may_open())
                .filter(|until| *until > Instant::now())
            else {
                return;
            };
            // The end of an outage may change while it is awaited.
            tokio::time::sleep_until(until.min(Instant::now() + Duration::from_millis(200))).await;
        }
    }

    fn refused(&self, tunnel: Tunnel, token: &str, why: &str) {
        self.world.log.line(
            "tunnel-refused",
            json!({
                "cluster": self.handle.home, "tunnel": tunnel.name(), "pod": self.handle.pod,
                "fingerprint": fingerprint(token), "why": why,
            }),
        );
    }

    /// Asks the authorizer. It is asked only when a tunnel is opened: an open tunnel stays open when its token becomes
    /// invalid (seen on both).
    fn open(&self, tunnel: Tunnel, credential: &Credential, trust: &Trust) -> Option<Held<'_>> {
        let Credential { token, url } = credential;
        if let Err(why) = self.world.connect_check(url, trust) {
            self.refused(tunnel, token, why);
            return None;
        }
        let (storage, index) = (self.world.storage(), &self.world.index);
        let (found, why) = match tunnel {
            Tunnel::Agent => (index.tunnel(storage, token), "400 cluster not found"),
            Tunnel::Steve => (index.steve(storage, token), "401 failed authentication"),
        };
        let found = found.filter(|cluster| !index.refused_for_tunnels(cluster, token));
        let Some(cluster) = found else {
            self.refused(tunnel, token, why);
            return None;
        };
        let print = fingerprint(token);
        let session = self
            .world
            .sessions
            .open(tunnel, &cluster, &self.handle.home, &self.handle.pod, &print);
        self.world.log.line(
            "tunnel-open",
            json!({"cluster": cluster, "tunnel": tunnel.name(), "pod": self.handle.pod, "fingerprint": print}),
        );
        let held = Held(&self.world, session);
        self.world.note(&cluster);
        Some(held)
    }

    /// The tunnel that carries calls. After every success `stv-aggregation` is written (`cmd/agent/main.go`, `onConnect`,
    /// and `pkg/agent/rancher/rancher.go`, `setupSteveAggregation`, 2.15.0).
    async fn keep_agent_tunnel(&self, credential: &Credential, trust: &Trust) {
        loop {
            self.reachable().await;
            let mut cut = self.handle.cut.subscribe();
            let Some(held) = self.open(Tunnel::Agent, credential, trust) else {
                tokio::time::sleep(self.world.timing().agent_retry).await;
                continue;
            };
            if let Err(error) = self.write_aggregation(credential, trust).await {
                tracing::warn!(cluster = self.handle.home, %error, "cannot write stv-aggregation");
            }
            self.see_aggregation(credential).await;
            self.joined.send_replace(true);
            crate::conditions::connected(&self.world, &held.1.cluster, &held.1.home).await;
            // The sender is in the handle, which outlives this task.
            tokio::select! {
                _ = cut.changed() => {}
                () = self.world.addresses.lost(&credential.url) => {}
            }
        }
    }

    /// The files are read again at this point. If the Secret was patched in place, an old agent that reconnects writes
    /// the new token. The last writer wins.
    async fn write_aggregation(&self, credential: &Credential, trust: &Trust) -> ApiResult<()> {
        let fresh = self.mounted().await.unwrap_or_else(|| credential.clone());
        let namespace = self.namespace();
        let ca = format!("{}\n", trust.0.trim_end());
        let checksum = &self.handle.environment.checksum;
        let data = json!({
            "CATTLE_TOKEN": read::encode(&fresh.token), "CATTLE_SERVER": read::encode(&fresh.url),
            "CATTLE_CA_CHECKSUM": read::encode(checksum), "CATTLE_CACERTS_VALID": read::encode("true"),
            "ca.crt": read::encode(&ca), "token": read::encode(&format!("stv-cluster-{}", fresh.token)),
            "url": read::encode(&format!("{}/v3/connect", fresh.url)),
        });
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
            "metadata": {
                "name": STV, "namespace": namespace,
                "annotations": {"objectset.rio.cattle.io/id": "rancher-stv-aggregation"},
            },
        });
        let as_agent = |path: &str| format!("{path}?fieldManager=agent");
        let written = match self
            .world
            .downstream
            .merge(&as_agent(&paths::secret(&namespace, STV)), &object)
            .await
        {
            Err(crate::api::ApiError::NotFound) => {
                let collection = as_agent(&paths::secrets(&namespace));
                self.world.downstream.create(&collection, &object).await
            }
            result => result,
        };
        self.world.log.line(
            "aggregation-written",
            json!({
                "cluster": self.handle.home, "pod": self.handle.pod, "fingerprint": fingerprint(&fresh.token),
            }),
        );
        written.map(|_| ())
    }

    /// The steve client reads what this agent has just written. Another agent may have overwritten it meanwhile.
    async fn see_aggregation(&self, credential: &Credential) {
        let mut version = self.world.downstream_secrets.version();
        let seen = async {
            while self.aggregation().is_none_or(|now| now.token != credential.token) {
                if version.changed().await.is_err() {
                    return;
                }
            }
        };
        // If the write is not seen, another agent has overwritten it.
        let _ = tokio::time::timeout(Duration::from_millis(500), seen).await;
    }

    /// The steve client of every pod follows `stv-aggregation`, not its own files (`github.com/rancher/steve`
    /// `pkg/aggregation/watch.go`).
    fn aggregation(&self) -> Option<Credential> {
        let secret = self.world.downstream_secrets.get(&self.namespace(), STV)?;
        let url = read::secret(&secret, "url")?;
        let token = read::secret(&secret, "token")?.strip_prefix("stv-cluster-")?.to_owned();
        Some(Credential {
            token,
            url: url.strip_suffix("/v3/connect")?.to_owned(),
        })
    }

    /// The tunnel that the condition `Connected` depends on. An agent without the feature flag has none: the import
    /// manifest drops it (seen on Rancher 2.15.0).
    async fn keep_steve_tunnel(&self, trust: &Trust) {
        let features = variable(&self.spec, "CATTLE_FEATURES").unwrap_or_default();
        if !features
            .split(',')
            .any(|feature| feature == "multi-cluster-management-agent=true")
        {
            return;
        }
        let _ = self.joined.subscribe().wait_for(|joined| *joined).await;
        let mut version = self.world.downstream_secrets.version();
        loop {
            version.borrow_and_update();
            let Some(wanted) = self.aggregation() else {
                let _ = version.changed().await;
                continue;
            };
            self.reachable().await;
            let mut cut = self.handle.cut.subscribe();
            let held = self.open(Tunnel::Steve, &wanted, trust);
            let retry = if held.is_some() {
                Duration::MAX
            } else {
                self.world.timing().agent_retry
            };
            tokio::select! {
                _ = cut.changed() => {}
                () = self.world.addresses.lost(&wanted.url), if held.is_some() => {}
                () = tokio::time::sleep(retry) => {}
                () = self.until_it_names_another(&mut version, &wanted) => {}
            }
        }
    }

    async fn until_it_names_another(&self, version: &mut watch::Receiver<u64>, wanted: &Credential) {
        while self.aggregation().as_ref().is_none_or(|now| now == wanted) {
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    async fn clean_hourly(&self) {
        loop {
            tokio::time::sleep(Duration::from_hours(1)).await;
            clean(&self.world, &self.handle.home, &self.spec, SignedDuration::ZERO).await;
        }
    }
}

/// Deletes credential Secrets that are not this agent's own and older than an hour; `pretended` is added to their age
/// (`pkg/agent/clean/credentials.go`, 2.15.0).
async fn clean(world: &World, cluster: &str, spec: &Value, pretended: SignedDuration) -> Vec<String> {
    let Some(own) = variable(spec, "CATTLE_CREDENTIAL_NAME") else {
        return Vec::new();
    };
    let namespace = agent_namespace(cluster);
    let mut deleted = Vec::new();
    for secret in world.downstream_secrets.in_namespace(&namespace) {
        let name = read::name(&secret);
        let born = read::time(read::text(&secret, "/metadata/creationTimestamp"));
        let age = born.map_or(SignedDuration::ZERO, |born| Timestamp::now().duration_since(born)) + pretended;
        let foreign = name.starts_with("cattle-credentials-") && name != own;
        if foreign
            && age > SignedDuration::from_hours(1)
            && world.downstream.delete(&paths::secret(&namespace, name)).await.is_ok()
        {
            world
                .log
                .line("credential-cleaned", json!({"cluster": cluster, "secret": name}));
            deleted.push(name.to_owned());
        }
    }
    deleted
}

/// Every running agent of a cluster deletes old Secrets now, as if this much more time had passed.
pub(crate) async fn clean_now(world: &World, cluster: &str, pretended: SignedDuration) -> Vec<String> {
    let mut deleted = Vec::new();
    for pod in world.pods.in_namespace(&agent_namespace(cluster)) {
        if runs(&pod) {
            deleted.extend(clean(world, cluster, &pod["spec"], pretended).await);
        }
    }
    deleted
}

/// Closes both tunnels of every pod. They reopen one after the other, `gap` apart, the first after one `gap`. With
/// `oldest_last` the old agent is the last writer of `stv-aggregation`. Returns the pods in that order.
pub(crate) fn drop_tunnels(world: &World, cluster: &str, gap: Duration, oldest_last: bool) -> Vec<String> {
    let mut all = world.agents.of(cluster);
    if oldest_last {
        all.reverse();
    }
    let mut at = Instant::now();
    for handle in &all {
        at += gap;
        handle.cut.send_modify(|(count, until)| {
            *count += 1;
            *until = Some(at);
        });
    }
    all.iter().map(|handle| handle.pod.clone()).collect()
}

/// Closes all tunnels, because the server went away.
pub(crate) fn drop_all(world: &World) {
    for handle in world.agents.lock().values() {
        handle.cut.send_modify(|(count, _)| *count += 1);
    }
}
