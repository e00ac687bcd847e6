//! Control planes for one test after the other. Starting one takes as much processor time as a whole test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use e2e::until;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use test_cluster::{ControlPlane, FakeSupervisor, Shape, TestEnvironment};

/// Those that no test uses now, with the directory of the fake servers that were on each.
static FREE: Mutex<Vec<(ControlPlane, PathBuf)>> = Mutex::new(Vec::new());

const SYSTEM: &str = "kube-system";

/// A control plane that is free again when it is dropped. The fake servers on it have to be dropped before.
pub(crate) struct Borrowed {
    plane: Option<ControlPlane>,
    servers: PathBuf,
}

impl Borrowed {
    /// One without anything that a test could see. `servers`: the directory of the fake servers that will be on it.
    pub(crate) async fn take(servers: &Path) -> Result<Self> {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let plane = if let Some((plane, before)) = free {
            have_ended(&before).await?;
            empty(&plane.client().await?).await.context("empty a control plane")?;
            plane
        } else {
            let environment = TestEnvironment::shared().await?;
            let test = servers.parent().and_then(Path::file_name).context("no name")?;
            let name = test.to_string_lossy();
            let dir = environment.dir().join(format!("{name}-plane"));
            ControlPlane::start(environment.programs(), &dir, &name, Shape::WithoutNodes).await?
        };
        Ok(Self {
            plane: Some(plane),
            servers: servers.to_owned(),
        })
    }

    pub(crate) fn plane(&self) -> Result<&ControlPlane> {
        self.plane.as_ref().context("it was given back")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(plane) = self.plane.take() {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            free.push((plane, self.servers.clone()));
        }
    }
}

/// The processes of fake servers, which write their Nodes.
async fn have_ended(servers: &Path) -> Result<()> {
    let servers = servers.to_string_lossy().into_owned();
    let is_theirs = |process: &fs::DirEntry| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&servers)
    };
    let none_left = || Ok::<_, std::io::Error>(!fs::read_dir("/proc")?.flatten().any(|process| is_theirs(&process)));
    until("the fake servers of the test before to end", async || {
        Ok(none_left()?.then_some(()))
    })
    .await
}

async fn empty(client: &Client) -> Result<()> {
    let at_once = DeleteParams::default().grace_period(0);
    let all = ListParams::default();
    Api::<Node>::all(client.clone())
        .delete_collection(&at_once, &all)
        .await?;
    Api::<Secret>::namespaced(client.clone(), SYSTEM)
        .delete_collection(&at_once, &all)
        .await?;
    Api::<Pod>::namespaced(client.clone(), SYSTEM)
        .delete_collection(&at_once, &all)
        .await?;
    Api::<Lease>::namespaced(client.clone(), "kube-node-lease")
        .delete_collection(&at_once, &all)
        .await?;
    let lease = Api::<Lease>::namespaced(client.clone(), SYSTEM);
    found(lease.delete("server-token", &at_once).await)?;
    let snapshots = FakeSupervisor::snapshot_files(client.clone());
    found(snapshots.delete_collection(&at_once, &all).await)?;
    let namespaces = Api::<Namespace>::all(client.clone());
    let labels: BTreeSet<String> = namespaces.get(SYSTEM).await?.labels().keys().cloned().collect();
    let added = labels.into_iter().filter(|label| label.starts_with("pod-security"));
    let removed: serde_json::Map<_, _> = added.map(|label| (label, json!(null))).collect();
    let patch = Patch::Merge(json!({ "metadata": { "labels": removed } }));
    namespaces.patch(SYSTEM, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// What was not there is empty too.
fn found<T>(deleted: kube::Result<T>) -> Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => Ok(deleted.map(drop)?),
    }
}
