//! `/control/…`: the endpoints by which tests control and inspect the fake Rancher. There is no authentication; it
//! listens only on the loopback interface.
//!
//! ```text
//! POST   clusters                  {"displayName", "id"?, "kind"?, "namePattern"?, "replicas"?, "quick"?, "machines"?} → {"id"}
//!                                  kind: imported k3s rke2 rke1 eks harvester provisioned local; namePattern: sha256 md5 import.
//!                                  Responds when the agent is connected and all rollouts are complete. quick: one rollout, not three.
//! GET    clusters                  ids
//! GET    clusters/<id>             sessions, agents, accepted (fingerprints), conditions, connectedSince, disconnected, and
//!                                  without: intervals {from, to, ms} without a tunnel, a steve tunnel, a validToken (an agent with
//!                                  a valid token), restartSafety (a valid token in the Secret that the Deployment names)
//! DELETE clusters/<id>
//! GET    clusters/<id>/serving-certificate for this machine, signed by the cluster's own CA: certificate, key, ca
//! POST   clusters/<id>/redeploy    {} = force.deploy; {"renderedNow", "landsAfter"} = one that races; "wait": answer once landed
//! POST   clusters/<id>/drop-tunnels {"gap"?, "oldestLast"?} both tunnels of every pod; back one by one, so the last one writes last
//! POST   clusters/<id>/offline     {"for"?}, and online
//! POST   clusters/<id>/agent-cleanup {"pretendedAge"?} every agent deletes foreign credential Secrets
//! POST   clusters/<id>/timing      {"redeploy"?} how long one apply of this cluster's agent takes; as everywhere without it
//! POST   clusters/<id>/cluster-event sets an annotation without meaning
//! POST   clusters/<id>/ca-cert     {"stale": bool} status.caCert is the cluster's CA, or a former one until the agent connects again
//! POST   clusters/<id>/machines/<name> {"running"?, "restart"?: true, "delete"?: true} of a provisioned cluster: its system-agent runs or not;
//!                                  its server starts, and applies the file that it has; the Machine is deleted
//! POST   clusters/<id>/reset       forget the intervals so far
//! POST   faults                    replicaLag, replicas (1|2), leaderGap, refuse, refuseNewTokens, admit, and times
//! POST   settings                  {"serverUrl"?, "reachable"?, "cacerts"?} changes Rancher's settings, and nothing else: answers
//!                                  once Rancher reads the new values. reachable (true): whether agents reach the new URL
//! POST   addresses                 {"url", "reachable"} whether agents reach Rancher under this URL; if not, its tunnels break
//! POST   users, DELETE users/<name> adds or removes a Rancher user and its token
//! GET    tokens                    every issued API token: name, user, clusterId, valid, lastUsedAt, description
//! POST   tokens/<name>             {"enabled"?, "expired"?: true, "ext"?: true} changes a token as an administrator or time does; ext: it is one of ext.cattle.io
//! POST   upgrade                   2.12.0 → 2.15.0
//! GET    state
//! ```

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use k8s_openapi::jiff::SignedDuration;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{ApiError, ApiResult, MERGE, paths, read};
use crate::config::{TokenStorage, User, optional_duration};
use crate::server::{Body, json_answer};
use crate::world::World;
use crate::{agent, api_token, clusters, deploy, identity, planner, upgrade};

/// An HTTP status and a message.
struct Failure(u16, String);

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(500, format!("{error:#}"))
    }
}

type Outcome = Result<Value, Failure>;

/// Answers one control request.
pub(crate) async fn handle(world: &Arc<World>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let words: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return json_answer(400, &json!({"error": error.to_string()})),
    };
    if parts.method != Method::GET {
        world
            .log
            .line("control", json!({"method": parts.method.as_str(), "path": path}));
    }
    let outcome = match (&parts.method, words.as_slice()) {
        (&Method::GET, ["state"]) => Ok(state(world)),
        (&Method::GET, ["clusters"]) => Ok(json!(
            world.clusters.all().iter().map(|c| read::name(c)).collect::<Vec<_>>()
        )),
        (&Method::POST, ["clusters"]) => register(world, &body).await,
        (&Method::POST, ["faults"]) => faults(world, &body),
        (&Method::POST, ["settings"]) => settings(world, parse(&body)).await,
        (&Method::POST, ["addresses"]) => parse(&body).map(|address: Address| {
            world.addresses.set(&address.url, address.reachable);
            json!({})
        }),
        (&Method::POST, ["users"]) => add_user(world, &body),
        (&Method::DELETE, ["users", name]) => Ok(remove_user(world, name)),
        (&Method::GET, ["tokens"]) => Ok(api_token::report(world)),
        (&Method::POST, ["tokens", name]) => change_token(world, name, &body),
        (&Method::POST, ["upgrade"]) => upgrade::upgrade(world).await.map(|()| json!({})).map_err(Failure::from),
        (method, ["clusters", id, rest @ ..]) => cluster(world, method, id, rest, &body).await,
        _ => Err(Failure(404, format!("no such control: {} {path}", parts.method))),
    };
    match outcome {
        Ok(value) => json_answer(200, &value),
        Err(Failure(status, error)) => json_answer(status, &json!({"error": error})),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Failure(400, error.to_string()))
}

fn state(world: &World) -> Value {
    let timing = world.timing();
    json!({
        "storage": match world.storage() { TokenStorage::Status => "status", TokenStorage::Secret => "secret" },
        "url": world.url, "version": world.storage().version(), "timing": format!("{timing:?}"),
    })
}

async fn register(world: &Arc<World>, body: &[u8]) -> Outcome {
    let id = clusters::register(world, parse(body)?).await?;
    Ok(json!({"id": id}))
}

async fn cluster(world: &Arc<World>, method: &Method, id: &str, rest: &[&str], body: &[u8]) -> Outcome {
    if world.cluster(id).is_none() {
        return Err(Failure(404, format!("no cluster {id}")));
    }
    match (method, rest) {
        (&Method::GET, []) => clusters::report(world, id).ok_or_else(|| Failure(404, format!("no cluster {id}"))),
        (&Method::GET, ["serving-certificate"]) => Ok(identity::serving_certificate(id)?),
        (&Method::DELETE, []) => Ok(clusters::remove(world, id).await.map(|()| json!({}))?),
        (&Method::POST, ["redeploy"]) => redeploy(world, id, parse(body)?).await,
        (&Method::POST, ["drop-tunnels"]) => {
            let wanted: Drop = parse(body)?;
            let gap = wanted.gap.unwrap_or(Duration::from_millis(500));
            Ok(json!({"order": agent::drop_tunnels(world, id, gap, wanted.oldest_last.unwrap_or(true))}))
        }
        (&Method::POST, ["offline"]) => {
            let wanted: Offline = parse(body)?;
            let until = Instant::now() + wanted.length.unwrap_or(Duration::from_hours(365 * 24));
            world.change_traits(id, |traits| traits.offline_until = Some(until));
            agent::drop_tunnels(world, id, Duration::ZERO, false);
            Ok(json!({}))
        }
        (&Method::POST, ["online"]) => {
            world.change_traits(id, |traits| traits.offline_until = None);
            Ok(json!({}))
        }
        (&Method::POST, ["agent-cleanup"]) => {
            let wanted: Cleanup = parse(body)?;
            let pretended = SignedDuration::try_from(wanted.pretended_age.unwrap_or(Duration::from_hours(2)))?;
            Ok(json!({"deleted": agent::clean_now(world, id, pretended).await}))
        }
        (&Method::POST, ["cluster-event"]) => Ok(clusters::event(world, id).await.map(|()| json!({}))?),
        (&Method::POST, ["timing"]) => {
            let wanted: ClusterTiming = parse(body)?;
            world.change_traits(id, |traits| traits.redeploy = wanted.redeploy);
            Ok(json!({}))
        }
        (&Method::POST, ["ca-cert"]) => {
            let wanted: CaCert = parse(body)?;
            Ok(clusters::write_ca_cert(world, id, wanted.stale)
                .await
                .map(|()| json!({}))?)
        }
        (&Method::POST, ["machines", machine]) => {
            let changed = planner::change(world, id, machine, parse(body)?).await;
            let changed = changed.ok_or_else(|| Failure(404, format!("no machine {machine}")))?;
            Ok(changed.map(|()| json!({}))?)
        }
        (&Method::POST, ["reset"]) => {
            world.sessions.reset(id);
            Ok(json!({}))
        }
        _ => Err(Failure(
            404,
            format!("no such control of a cluster: {}", rest.join("/")),
        )),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Redeploy {
    /// The manifest has the token of now, not of the moment of the apply.
    #[serde(default)]
    rendered_now: bool,
    #[serde(default, deserialize_with = "optional_duration")]
    lands_after: Option<Duration>,
    /// Responds when it is applied.
    #[serde(default)]
    wait: bool,
}

/// Rancher deploys the agent again. Without times it is like `force.deploy`; with them it is a racing redeploy.
async fn redeploy(world: &Arc<World>, id: &str, wanted: Redeploy) -> Outcome {
    let Some(after) = wanted.lands_after else {
        let patch = json!({"metadata": {"annotations": {deploy::FORCE: "true"}}});
        world.management.patch(&paths::cluster(id), MERGE, &patch).await?;
        if wanted.wait {
            forced(world, id).await?;
        }
        return Ok(json!({}));
    };
    let (world, id) = (world.clone(), id.to_owned());
    let mut begun = if wanted.rendered_now {
        Some(racing(&world, &id).await?)
    } else {
        None
    };
    let task = tokio::spawn(async move {
        tokio::time::sleep(after).await;
        loop {
            let begun = match begun.take() {
                Some(begun) => begun,
                None => racing(&world, &id).await?,
            };
            match begun.land(&world, &id, Duration::ZERO).await {
                Err(ApiError::Conflict) => tokio::time::sleep(Duration::from_millis(50)).await,
                result => return result,
            }
        }
    });
    if wanted.wait {
        task.await??;
    }
    Ok(json!({}))
}

async fn racing(world: &World, id: &str) -> ApiResult<deploy::Begun> {
    let cluster = world.management.get(&paths::cluster(id)).await?;
    deploy::begin(world, id, cluster.ok_or(ApiError::NotFound)?, "racing").await
}

/// Returns when Rancher has set the annotation back.
async fn forced(world: &World, id: &str) -> Result<(), Failure> {
    let mut version = world.clusters.version();
    let done = async {
        // The annotation was written before: the cache may still show the cluster without it.
        let mut seen = false;
        loop {
            let value = world
                .cluster(id)
                .map(|cluster| read::annotation(&cluster, deploy::FORCE).to_owned());
            seen |= value.as_deref() == Some("true");
            if seen && value.as_deref() == Some("false") {
                return;
            }
            if version.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), done)
        .await
        .map_err(|_| Failure(504, "the redeploy did not land".into()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Drop {
    #[serde(default, deserialize_with = "optional_duration")]
    gap: Option<Duration>,
    oldest_last: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Offline {
    #[serde(default, rename = "for", deserialize_with = "optional_duration")]
    length: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterTiming {
    #[serde(default, deserialize_with = "optional_duration")]
    redeploy: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaCert {
    stale: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cleanup {
    #[serde(default, deserialize_with = "optional_duration")]
    pretended_age: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Faults {
    /// The lag of the authorizer.
    #[serde(default, deserialize_with = "optional_duration")]
    replica_lag: Option<Duration>,
    /// 1: the lagging replica responds. 2: an up-to-date one and the lagging one in turn.
    replicas: Option<usize>,
    /// No controller acts for this long.
    #[serde(default, deserialize_with = "optional_duration")]
    leader_gap: Option<Duration>,
    /// Fingerprints that are rejected everywhere.
    #[serde(default)]
    refuse: Vec<String>,
    /// Clusters whose tunnels reject every token that is created from now on. Probes accept it.
    #[serde(default)]
    refuse_new_tokens: Vec<String>,
    /// Fingerprints that are no longer rejected; `["*"]` for all rejections of both kinds.
    #[serde(default)]
    admit: Vec<String>,
    #[serde(default, deserialize_with = "optional_duration")]
    agent_start: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    agent_retry: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    connected_tick: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    redeploy: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    disconnected_wait: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    plan_apply: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    file_apply: Option<Duration>,
}

fn faults(world: &World, body: &[u8]) -> Outcome {
    let wanted: Faults = parse(body)?;
    let fields = String::from_utf8_lossy(body).into_owned();
    world.log.line("fault", json!({"wanted": fields}));
    if let Some(lag) = wanted.replica_lag {
        world.index.set_lag(lag);
    }
    if let Some(count) = wanted.replicas {
        world.index.set_replicas(count);
    }
    if let Some(gap) = wanted.leader_gap {
        world.leader_gap(gap);
    }
    for fingerprint in &wanted.admit {
        world.index.admit((fingerprint != "*").then_some(fingerprint));
    }
    for fingerprint in &wanted.refuse {
        world.index.refuse(fingerprint);
    }
    for cluster in &wanted.refuse_new_tokens {
        world.index.refuse_new(cluster);
    }
    world.change_timing(|timing| {
        timing.agent_start = wanted.agent_start.unwrap_or(timing.agent_start);
        timing.agent_retry = wanted.agent_retry.unwrap_or(timing.agent_retry);
        timing.connected_tick = wanted.connected_tick.unwrap_or(timing.connected_tick);
        timing.redeploy = wanted.redeploy.unwrap_or(timing.redeploy);
        timing.disconnected_wait = wanted.disconnected_wait.unwrap_or(timing.disconnected_wait);
        timing.plan_apply = wanted.plan_apply.unwrap_or(timing.plan_apply);
        timing.file_apply = wanted.file_apply.unwrap_or(timing.file_apply);
    });
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    url: String,
    reachable: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Settings {
    server_url: Option<String>,
    /// Whether agents reach the new URL.
    reachable: Option<bool>,
    cacerts: Option<String>,
}

/// Changes Rancher's settings, like an administrator. Nothing is pushed by it (seen on Rancher 2.15.0).
async fn settings(world: &World, wanted: Result<Settings, Failure>) -> Outcome {
    let wanted = wanted?;
    if let Some(url) = &wanted.server_url {
        world.addresses.set(url, wanted.reachable.unwrap_or(true));
    }
    for (name, value) in [("server-url", wanted.server_url), ("cacerts", wanted.cacerts)] {
        let Some(value) = value else { continue };
        let mut version = world.settings.version();
        let patch = json!({"value": value, "customized": true});
        let path = format!("{}/{name}", paths::settings());
        world.management.merge(&path, &patch).await?;
        let read = async {
            while world.setting(name) != value {
                if version.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(1), read)
            .await
            .map_err(|_| Failure(504, format!("setting {name} is not as it was written")))?;
    }
    Ok(json!({}))
}

fn add_user(world: &World, body: &[u8]) -> Outcome {
    let user: User = parse(body)?;
    let mut users = world.users.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    users.retain(|other| other.name != user.name);
    users.push(user);
    Ok(json!({}))
}

/// The user's tokens are invalid from now on.
fn remove_user(world: &World, name: &str) -> Value {
    world
        .users
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .retain(|user| user.name != name);
    json!({})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenChange {
    enabled: Option<bool>,
    #[serde(default)]
    expired: bool,
    #[serde(default)]
    ext: bool,
}

fn change_token(world: &World, name: &str, body: &[u8]) -> Outcome {
    let wanted: TokenChange = parse(body)?;
    if wanted.ext {
        world.tokens.make_ext(name);
    }
    if world.tokens.change(name, wanted.enabled, wanted.expired) {
        Ok(json!({}))
    } else {
        Err(Failure(404, format!("no token {name}")))
    }
}
