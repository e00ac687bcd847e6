//! `POST /db/snapshot`: `pkg/etcd/snapshot_handler.go`. A snapshot is a file on its server, and an `ETCDSnapshotFile` in
//! the real API server whose annotation has the hash of that server's `server/token`.

use anyhow::{Result, bail};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::datastore::{Datastore, Snapshot};
use crate::http_server::Reply;
use crate::node::seconds;
use crate::serve::{Phase, Server};
use crate::token::hash12;

/// The default of `--etcd-snapshot-retention`.
const RETENTION: usize = 5;

#[derive(Deserialize)]
struct Operation {
    #[serde(default)]
    operation: String,
    #[serde(default)]
    name: Vec<String>,
}

pub(crate) async fn handle(server: &Server, body: &[u8], phase: Phase) -> Result<Reply> {
    if server.node.is_sqlite() {
        return Ok(Reply::Status(400, "etcd datastore disabled".into()));
    }
    let request: Operation = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return Ok(Reply::Status(400, error.to_string())),
    };
    if !["save", "list", "delete"].contains(&request.operation.as_str()) {
        return Ok(Reply::Status(400, format!("invalid operation {:?}", request.operation)));
    }
    let nodes = server.node.all();
    let store = Datastore::of(&server.node);
    if phase < Phase::Etcd || !store.has_quorum(&nodes) {
        bail!("etcdclient: no available endpoints");
    }
    let me = &server.node.server.name;
    Ok(match request.operation.as_str() {
        "save" => {
            let prefix = request.name.first().map_or("on-demand", String::as_str);
            let snapshot = save(server, &store, prefix)?;
            create_object(server, &snapshot).await?;
            let created = snapshot.name.clone();
            // Retention looks at the beginning of the names only.
            let mine = store.read().snapshots.into_iter();
            let mut same: Vec<Snapshot> = mine.filter(|s| &s.node == me && s.name.starts_with(prefix)).collect();
            same.reverse();
            delete(server, &store, same.iter().skip(RETENTION)).await?;
            Reply::Json(200, json!({"created": [created]}))
        }
        "delete" => {
            let mut all = store.read().snapshots;
            all.retain(|snapshot| &snapshot.node == me && request.name.contains(&snapshot.name));
            delete(server, &store, all.iter()).await?;
            let names: Vec<&str> = all.iter().map(|snapshot| snapshot.name.as_str()).collect();
            Reply::Json(200, json!({"deleted": names}))
        }
        _ => {
            let all = store.read().snapshots;
            let items: Vec<Value> = all.iter().map(|snapshot| object(server, snapshot)).collect();
            Reply::Json(
                200,
                json!({"kind": "ETCDSnapshotFileList", "apiVersion": "k3s.cattle.io/v1", "metadata": {}, "items": items}),
            )
        }
    })
}

fn save(server: &Server, store: &Datastore, prefix: &str) -> Result<Snapshot> {
    let me = &server.node.server.name;
    let created = seconds(server.node.now());
    let contents = store.read();
    // Two in the same second need two names.
    let name = (created..=i64::MAX)
        .map(|number| format!("{prefix}-{me}-{number}"))
        .find(|name| contents.snapshots.iter().all(|s| &s.name != name))
        .unwrap_or_default();
    let snapshot = Snapshot {
        name: name.clone(),
        node: me.clone(),
        token_hash: hash12(&server.files.token().unwrap_or_default()),
        created,
    };
    let dir = server.files.dir.join("db/snapshots");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join(name), serde_json::to_string(&contents)?)?;
    store.change(&server.node.all(), None, |contents| {
        contents.snapshots.push(snapshot.clone());
    })?;
    Ok(snapshot)
}

async fn delete(server: &Server, store: &Datastore, snapshots: impl Iterator<Item = &Snapshot>) -> Result<()> {
    for snapshot in snapshots {
        let _ = std::fs::remove_file(server.files.dir.join("db/snapshots").join(&snapshot.name));
        store.change(&server.node.all(), None, |contents| {
            contents.snapshots.retain(|other| other.name != snapshot.name);
        })?;
        if let Some(api) = api(server) {
            ignore_missing(
                api.delete(&object_name(snapshot), &DeleteParams::default())
                    .await
                    .map(drop),
            )?;
        }
    }
    Ok(())
}

fn ignore_missing(result: kube::Result<()>) -> Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other?),
    }
}

async fn create_object(server: &Server, snapshot: &Snapshot) -> Result<()> {
    if let Some(api) = api(server) {
        api.create(
            &PostParams::default(),
            &serde_json::from_value(object(server, snapshot))?,
        )
        .await?;
    }
    Ok(())
}

fn api(server: &Server) -> Option<Api<DynamicObject>> {
    let kind = ApiResource {
        group: "k3s.cattle.io".into(),
        version: "v1".into(),
        api_version: "k3s.cattle.io/v1".into(),
        kind: "ETCDSnapshotFile".into(),
        plural: "etcdsnapshotfiles".into(),
    };
    Some(Api::all_with(server.kube.clone()?, &kind))
}

fn object_name(snapshot: &Snapshot) -> String {
    format!("local-{}", snapshot.name)
}

fn object(server: &Server, snapshot: &Snapshot) -> Value {
    let domain = format!("etcd.{}.cattle.io", server.node.program());
    let created = Timestamp::from_second(snapshot.created).unwrap_or_default().to_string();
    let file = server.files.dir.join("db/snapshots").join(&snapshot.name);
    json!({
        "apiVersion": "k3s.cattle.io/v1", "kind": "ETCDSnapshotFile",
        "metadata": {
            "name": object_name(snapshot),
            "labels": {format!("{domain}/snapshot-storage-node"): snapshot.node},
            "annotations": {format!("{domain}/snapshot-token-hash"): snapshot.token_hash},
        },
        "spec": {"nodeName": snapshot.node, "snapshotName": snapshot.name, "location": format!("file://{}", file.display())},
        "status": {"creationTime": created, "readyToUse": true},
    })
}
