//! The controller of cluster registration tokens: `default-token`, the values, the commands and, with `secret` storage,
//! their TTL. Each cluster has a worker, which changes and its own timers wake.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::api::{ApiError, ApiResult, paths, read};
use crate::config::TokenStorage;
use crate::token::{ca_checksum, fingerprint, new_token};
use crate::ttl::{Decision, decide, expiry, grace, rfc3339, rotation_is_on};
use crate::world::World;

/// Rancher removes it itself when a token object goes (seen on Rancher 2.15.0).
pub(crate) const FINALIZER: &str = "wrangler.cattle.io/cluster-registration-token-cleanup";

/// The work for a cluster's worker.
#[derive(Default)]
struct Pending {
    /// The Cluster changed: all its tokens are checked.
    cluster: bool,
    tokens: BTreeSet<String>,
}

#[derive(Default)]
struct Registrar {
    pending: Mutex<Pending>,
    wake: Notify,
}

/// The workers, by cluster id.
#[derive(Default)]
pub(crate) struct Registrars(Mutex<HashMap<String, Arc<Registrar>>>);

impl Registrars {
    fn enqueue(&self, world: &Arc<World>, id: &str, add: impl FnOnce(&mut Pending)) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let registrar = all.entry(id.to_owned()).or_insert_with(|| {
            let registrar = Arc::new(Registrar::default());
            tokio::spawn(work(world.clone(), id.to_owned(), registrar.clone()));
            registrar
        });
        add(&mut registrar
            .pending
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner));
        registrar.wake.notify_one();
    }
}

/// Enqueues a token object of a cluster.
pub(crate) fn touch(world: &Arc<World>, id: &str, name: &str) {
    world.registrars.enqueue(world, id, |pending| {
        pending.tokens.insert(name.to_owned());
    });
}

/// Subscribes to what wakes the workers. A Secret's change does not: the handler fires on token objects, on Clusters and
/// on its own timers (`pkg/controllers/dashboard/clusterregistrationtoken/clusterregistrationtoken.go`, 2.15.0).
pub(crate) fn wire(world: &Arc<World>) {
    let mut clusters = world.clusters.subscribe();
    let mut crts = world.crts.subscribe();
    let mut features = world.features.subscribe();
    let world = world.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(change) = clusters.recv() => if change.new.is_some() {
                    world.registrars.enqueue(&world, &change.key.1, |pending| pending.cluster = true);
                },
                Some(change) = crts.recv() => if change.new.is_some() {
                    touch(&world, &change.key.0, &change.key.1);
                },
                Some(_) = features.recv() => feature_changed(&world),
                else => return,
            }
        }
    });
}

/// Seen on Rancher 2.15.0: switched on again, only tokens without an expiry are picked up by themselves.
fn feature_changed(world: &Arc<World>) {
    if world.storage() != TokenStorage::Secret || !rotation_is_on(world) {
        return;
    }
    for crt in world.crts.all() {
        if read::text(&crt, "/status/expiresAt").is_empty() {
            touch(world, read::text(&crt, "/metadata/namespace"), read::name(&crt));
        }
    }
}

async fn work(world: Arc<World>, id: String, registrar: Arc<Registrar>) {
    let mut alarms: HashMap<String, Timestamp> = HashMap::new();
    loop {
        let next = alarms.values().min().map(|at| until(*at));
        tokio::select! {
            () = registrar.wake.notified() => {}
            () = tokio::time::sleep(next.unwrap_or(Duration::MAX)), if next.is_some() => {}
        }
        world.leader().await;
        let mut pending = std::mem::take(
            &mut *registrar
                .pending
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let now = Timestamp::now();
        pending.tokens.extend(
            alarms
                .iter()
                .filter(|(_, at)| **at <= now)
                .map(|(name, _)| name.clone()),
        );
        if pending.cluster {
            match ensure_default(&world, &id).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(cluster = id, %error, "cannot make default-token"),
            }
            // `clusterregistrationtoken.go` (2.15.0): every change of a cluster re-enqueues its tokens.
            pending.tokens.extend(
                world
                    .crts
                    .in_namespace(&id)
                    .iter()
                    .map(|crt| read::name(crt).to_owned()),
            );
        }
        for name in pending.tokens {
            alarms.remove(&name);
            match reconcile(&world, &id, &name).await {
                Ok(Some(at)) => {
                    alarms.insert(name, at);
                }
                Ok(None) => {}
                Err(error) => {
                    if !matches!(error, ApiError::Conflict) {
                        tracing::warn!(cluster = id, token = name, %error, "cannot keep a registration token");
                    }
                    alarms.insert(name, Timestamp::now() + SignedDuration::from_millis(100));
                }
            }
        }
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// Any event of a Cluster that has no `default-token` makes one, with a new value
/// (`pkg/controllers/provisioningv2/cluster/controller.go`, `createToken`, 2.12.0 and 2.15.0).
async fn ensure_default(world: &World, id: &str) -> ApiResult<()> {
    let gone = world
        .cluster(id)
        .is_none_or(|cluster| !cluster["metadata"]["deletionTimestamp"].is_null());
    if gone || world.crts.get(id, "default-token").is_some() {
        return Ok(());
    }
    let object = json!({
        "apiVersion": "management.cattle.io/v3", "kind": "ClusterRegistrationToken",
        "metadata": {"name": "default-token", "namespace": id}, "spec": {"clusterName": id},
    });
    world
        .management
        .ensure(&paths::namespaces(), &json!({"metadata": {"name": id}}))
        .await?;
    world.management.ensure(&paths::crts(id), &object).await
}

/// Brings a token object to the state of its token storage. Returns when to check again.
async fn reconcile(world: &Arc<World>, id: &str, name: &str) -> ApiResult<Option<Timestamp>> {
    let Some(crt) = world.management.get(&paths::crt(id, name)).await? else {
        return Ok(None);
    };
    match world.storage() {
        TokenStorage::Status => keep_plain(world, crt).await.map(|()| None),
        TokenStorage::Secret => keep_secret(world, crt).await,
    }
}

/// Writes the status of a token object, unless it has changed since it was read.
async fn write_status(world: &World, crt: &Value, status: Value) -> ApiResult<Value> {
    let (namespace, name) = (read::text(crt, "/metadata/namespace"), read::name(crt));
    let patch = json!({"metadata": {"resourceVersion": crt["metadata"]["resourceVersion"]}, "status": status});
    world.management.merge(&paths::crt(namespace, name), &patch).await
}

/// Two writes, first the value, then the commands: generation 2 and 3 (seen on Rancher 2.12.0). A value in the created
/// object is kept (seen on Rancher 2.12.0).
async fn keep_plain(world: &World, crt: Value) -> ApiResult<()> {
    if !crt["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let mut crt = crt;
    if read::text(&crt, "/status/token").is_empty() {
        let token = new_token();
        log_rotation(world, "token-created", &crt, &token);
        crt = write_status(world, &crt, json!({"token": token})).await?;
    }
    let commands = commands(world, &crt, read::text(&crt, "/status/token"));
    write_missing(world, crt, commands).await.map(drop)
}

/// Any event of the Cluster renews what has changed in them, for example `server-url` (seen on Rancher 2.15.0). Returns
/// the resulting object.
async fn write_missing(world: &World, crt: Value, commands: Value) -> ApiResult<Value> {
    let Value::Object(commands) = commands else {
        return Ok(crt);
    };
    let missing: Map<String, Value> = commands
        .into_iter()
        .filter(|(key, value)| crt["status"][key] != *value)
        .collect();
    if missing.is_empty() {
        return Ok(crt);
    }
    write_status(world, &crt, Value::Object(missing)).await
}

/// Moves a token object from `status` to `secret` storage (`pkg/rancher/migrations.go`,
/// `migrateCRTTokensToSecretsFunc`, 2.15.0).
pub(crate) async fn migrate(world: &Arc<World>, id: &str, name: &str) -> ApiResult<()> {
    for _ in 0..10 {
        let Some(crt) = world.management.get(&paths::crt(id, name)).await? else {
            return Ok(());
        };
        match keep_secret(world, crt).await {
            Err(ApiError::Conflict) => tokio::time::sleep(Duration::from_millis(50)).await,
            result => return result.map(|_| ()),
        }
    }
    Err(ApiError::Conflict)
}

/// The commands that the UI shows, with a placeholder for the value with `secret` storage (seen on both).
fn commands(world: &World, crt: &Value, token: &str) -> Value {
    let url = world.setting("server-url");
    if url.is_empty() {
        return json!({});
    }
    let manifest = format!("{url}/v3/import/{token}_{}.yaml", read::text(crt, "/spec/clusterName"));
    let sum = ca_checksum(&world.setting("cacerts"));
    let linux = |curl: &str| {
        format!(
            " {curl} {url}/system-agent-install.sh | sudo  sh -s - --server {url} --label 'cattle.io/os=linux' \
             --token {token} --ca-checksum {sum}"
        )
    };
    let windows = |curl: &str| {
        format!(
            " {curl} {url}/wins-agent-install.ps1 -o install.ps1; Set-ExecutionPolicy Bypass -Scope Process -Force; \
             ./install.ps1 -Server {url} -Label 'cattle.io/os=windows' -Token {token} -Worker -CaChecksum {sum}"
        )
    };
    json!({
        "manifestUrl": manifest,
        "command": format!("kubectl apply -f {manifest}"),
        "insecureCommand": format!("curl --insecure -sfL {manifest} | kubectl apply -f -"),
        "nodeCommand": linux("curl -fL"),
        "insecureNodeCommand": linux("curl --insecure -fL"),
        "windowsNodeCommand": windows("curl.exe -fL"),
        "insecureWindowsNodeCommand": windows("curl.exe --insecure -fL"),
    })
}

fn log_rotation(world: &World, kind: &str, crt: &Value, token: &str) {
    world.log.line(
        kind,
        json!({"cluster": read::text(crt, "/metadata/namespace"), "token": read::name(crt), "fingerprint": fingerprint(token)}),
    );
}

pub(crate) fn secret_name(crt_name: &str) -> String {
    format!("crt-token-{crt_name}")
}

async fn keep_secret(world: &Arc<World>, crt: Value) -> ApiResult<Option<Timestamp>> {
    let (namespace, name) = (
        read::text(&crt, "/metadata/namespace").to_owned(),
        read::name(&crt).to_owned(),
    );
    if !crt["metadata"]["deletionTimestamp"].is_null() {
        return remove(world, &crt).await.map(|()| None);
    }
    let mut crt = crt;
    let finalizers = crt["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        let mut all = finalizers;
        all.push(FINALIZER.into());
        let patch = json!({"metadata": {"resourceVersion": crt["metadata"]["resourceVersion"], "finalizers": all}});
        crt = world.management.merge(&paths::crt(&namespace, &name), &patch).await?;
    }
    if read::text(&crt, "/status/tokenSecretName").is_empty() {
        crt = move_into_secret(world, &crt).await?;
    }
    let commands = commands(world, &crt, "{token}");
    crt = write_missing(world, crt, commands).await?;
    let secret = secret_name(&name);
    let Some(secret) = world.management.get(&paths::secret(&namespace, &secret)).await? else {
        tracing::warn!(cluster = namespace, secret, "failed to get token secret");
        return Ok(None);
    };
    apply_times(world, crt, secret).await
}

/// The work of the finalizer. The Secret is deleted with its owner, whatever was written into it meanwhile; the delete here replaces
/// the garbage collector where the management cluster runs without one (seen on Rancher 2.15.0: collected within 0.3 s).
async fn remove(world: &Arc<World>, crt: &Value) -> ApiResult<()> {
    let (namespace, name) = (read::text(crt, "/metadata/namespace"), read::name(crt));
    let kept: Vec<&Value> = crt["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| *entry != FINALIZER)
        .collect();
    let patch = json!({"metadata": {"resourceVersion": crt["metadata"]["resourceVersion"], "finalizers": kept}});
    world.management.merge(&paths::crt(namespace, name), &patch).await?;
    let (path, uid) = (
        paths::secret(namespace, &secret_name(name)),
        crt["metadata"]["uid"].clone(),
    );
    let world = world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(250)).await;
        if let Err(error) = collect(&world, &path, &uid).await {
            tracing::warn!(%error, path, "cannot collect the Secret of a registration token");
        }
    });
    Ok(())
}

async fn collect(world: &World, path: &str, owner: &Value) -> ApiResult<()> {
    let owned = |secret: &Value| {
        let owners = secret["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|owners| owners.iter().any(|reference| reference["uid"] == *owner))
    };
    if world.management.get(path).await?.is_some_and(|secret| owned(&secret)) {
        world.management.delete(path).await?;
    }
    Ok(())
}

/// A new token object: its value (its own, if one was given at create) goes into a Secret, and the status is written
/// once (`clusterregistrationtoken.go`, `onChange`, 2.15.0; seen: generation 2 after that).
async fn move_into_secret(world: &World, crt: &Value) -> ApiResult<Value> {
    let (namespace, name) = (read::text(crt, "/metadata/namespace"), read::name(crt));
    let path = paths::secret(namespace, &secret_name(name));
    let existing = world.management.get(&path).await?;
    let held = existing.as_ref().and_then(|secret| read::secret(secret, "token"));
    let given = Some(read::text(crt, "/status/token").to_owned()).filter(|token| !token.is_empty());
    let token = given.or(held).unwrap_or_else(new_token);
    let expires = rotation_is_on(world).then(|| rfc3339(expiry(world, crt)));
    let mut data = json!({"token": read::encode(&token)});
    if let Some(expires) = &expires {
        data["expiresAt"] = read::encode(expires);
    }
    let owner = json!([{
        "apiVersion": "management.cattle.io/v3", "kind": "ClusterRegistrationToken",
        "name": name, "uid": crt["metadata"]["uid"],
    }]);
    if existing.is_some() {
        // The owner stays: if the token object was deleted and created again, the garbage collector may still remove the
        // Secret of the new one (`ensureTokenSecret`; seen on Rancher 2.15.0).
        world.management.merge(&path, &json!({"data": data})).await?;
    } else {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
            "metadata": {"name": secret_name(name), "namespace": namespace, "ownerReferences": owner},
        });
        world.management.create(&paths::secrets(namespace), &object).await?;
    }
    log_rotation(world, "token-created", crt, &token);
    let mut status = commands(world, crt, "{token}");
    status["token"] = "".into();
    status["tokenSecretName"] = secret_name(name).into();
    if let Some(expires) = expires {
        status["expiresAt"] = expires.into();
    }
    write_status(world, crt, status).await
}

async fn apply_times(world: &World, crt: Value, secret: Value) -> ApiResult<Option<Timestamp>> {
    let (mut crt, mut secret) = (crt, secret);
    // Each round takes one decision away; the bound only guards against a mistake in them.
    for _ in 0..5 {
        (crt, secret) = match decide(&crt, &secret, rotation_is_on(world), Timestamp::now()) {
            Decision::Wait(at) => return Ok(at),
            Decision::EndGrace => {
                world.log.line(
                    "grace-ended",
                    json!({"cluster": crt["metadata"]["namespace"], "token": read::name(&crt)}),
                );
                let secret = write_secret(
                    world,
                    &secret,
                    json!({"previousToken": null, "gracePeriodExpiresAt": null}),
                )
                .await?;
                (
                    write_status(world, &crt, json!({"gracePeriodExpiresAt": null})).await?,
                    secret,
                )
            }
            Decision::Schedule => {
                let at = rfc3339(expiry(world, &crt));
                let secret = write_secret(world, &secret, json!({"expiresAt": read::encode(&at)})).await?;
                (write_status(world, &crt, json!({"expiresAt": at})).await?, secret)
            }
            Decision::PutBack => {
                let held = read::secret(&secret, "expiresAt");
                (write_status(world, &crt, json!({"expiresAt": held})).await?, secret)
            }
            Decision::Rotate => rotate(world, &crt, &secret).await?,
        };
    }
    Ok(None)
}

/// Rancher's own rotation: a new value, the old one kept for the grace period (seen on Rancher 2.15.0: 180 minutes, the
/// next expiry 30 days away). Nothing is pushed to the cluster before its next event.
async fn rotate(world: &World, crt: &Value, secret: &Value) -> ApiResult<(Value, Value)> {
    let token = new_token();
    let (expires, grace) = (rfc3339(expiry(world, crt)), rfc3339(grace(world, crt)));
    log_rotation(world, "rotate", crt, &token);
    let data = json!({
        "token": read::encode(&token), "previousToken": secret["data"]["token"],
        "expiresAt": read::encode(&expires), "gracePeriodExpiresAt": read::encode(&grace),
    });
    let secret = write_secret(world, secret, data).await?;
    let status = json!({"expiresAt": expires, "gracePeriodExpiresAt": grace});
    Ok((write_status(world, crt, status).await?, secret))
}

async fn write_secret(world: &World, secret: &Value, data: Value) -> ApiResult<Value> {
    let path = paths::secret(read::text(secret, "/metadata/namespace"), read::name(secret));
    let patch = json!({"metadata": {"resourceVersion": secret["metadata"]["resourceVersion"]}, "data": data});
    world.management.merge(&path, &patch).await
}
