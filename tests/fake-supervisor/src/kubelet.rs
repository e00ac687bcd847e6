//! The kubelet of a server, as far as a pod with one container and one Secret goes. The container is a process on the node. On K3s and RKE2
//! the kubelet is a part of the server: while that is down, no pod starts, no state is reported, and no log is served.
//!
//! Each pod leaves its object and its log in `log/pods` of the node, for tests.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::exec::command_on;
use crate::http_server;
use crate::manager::Manager;
use crate::node::Node;
use crate::unit::{Active, UnitHandle};

/// The port of every kubelet, at the address of its node.
pub(crate) const PORT: u16 = 10250;
/// An image that every node has.
pub(crate) const IMAGE: &str = "docker.io/rancher/mirrored-library-busybox:1.36.1";
const NAMESPACE: &str = "kube-system";
const POLL: Duration = Duration::from_millis(50);
/// The container in its mount namespace: a directory on a mount point, then its command.
const WITH_VOLUME: &str = r#"mkdir -p "$1" && mount --bind "$0" "$1" && shift && exec "$@""#;

/// Runs the pods of all nodes.
pub(crate) async fn run(manager: Arc<Manager>, client: Client) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
    let mut events = pin!(watcher(pods.clone(), watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                let name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
                let Some(unit) = name.and_then(|name| manager.unit(&name)) else {
                    continue;
                };
                if pod.metadata.deletion_timestamp.is_some() {
                    stop(&mut running, &uid);
                    // An error leaves the pod Terminating, which the test sees.
                    let _ = pods
                        .delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
                        .await;
                } else if let Entry::Vacant(new) = running.entry(uid) {
                    let client = client.clone();
                    let task = tokio::spawn(async move {
                        // An error leaves the pod Pending, which the test sees.
                        let _ = start(&client, &unit, &pod).await;
                    });
                    new.insert(task.abort_handle());
                }
            }
            Ok(watcher::Event::Delete(pod)) => stop(&mut running, &pod.uid().unwrap_or_default()),
            // After an error the watch restarts.
            _ => {}
        }
    }
}

fn stop(running: &mut BTreeMap<String, AbortHandle>, uid: &str) {
    if let Some(task) = running.remove(uid) {
        task.abort();
    }
}

async fn is_up(unit: &UnitHandle) {
    while unit.state().active != Active::Active {
        tokio::time::sleep(POLL).await;
    }
}

fn pod_log(node: &Node, name: &str) -> PathBuf {
    node.root().join("log/pods").join(name).with_extension("log")
}

async fn start(client: &Client, unit: &UnitHandle, pod: &Pod) -> Result<()> {
    is_up(unit).await;
    let (name, faults) = (pod.name_any(), unit.node.faults());
    let report = async |phase: &str, reason: Option<&str>, state: Value| {
        is_up(unit).await;
        let container = json!({
            "name": "script", "image": IMAGE, "imageID": "", "ready": false, "restartCount": 0, "state": state,
        });
        let containers = if state.is_null() { json!([]) } else { json!([container]) };
        let status = json!({"status": {"phase": phase, "reason": reason, "containerStatuses": containers}});
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await
    };
    if let Some(reason) = &faults.pod_waits {
        report("Pending", None, json!({"waiting": {"reason": reason}})).await?;
        return Ok(());
    }
    if faults.pod_evicted {
        report("Failed", Some("Evicted"), Value::Null).await?;
        return Ok(());
    }
    tokio::time::sleep(Duration::from_secs_f64(faults.pod_delay)).await;
    let log = pod_log(&unit.node, &name);
    std::fs::create_dir_all(log.parent().context("no directory")?)?;
    std::fs::write(log.with_extension("json"), serde_json::to_string(pod)?)?;
    let volume = Volume::mount(client, &unit.node, pod).await?;
    let mut container = container(&unit.node, pod, &volume, &log)?;
    let group = ProcessGroup(container.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    report("Running", None, json!({"running": {}})).await?;
    let deadline = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
    let deadline = Duration::from_secs(deadline.map_or(u64::MAX, i64::unsigned_abs));
    let Ok(ended) = tokio::time::timeout(deadline, container.wait()).await else {
        report("Failed", Some("DeadlineExceeded"), Value::Null).await?;
        return Ok(());
    };
    let code = ended?.code().unwrap_or(137);
    drop((group, volume));
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    report(phase, None, json!({"terminated": {"exitCode": code}})).await?;
    Ok(())
}

/// The process group of a container. It is killed with its pod.
struct ProcessGroup(Option<Pid>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may have ended.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn container(node: &Node, pod: &Pod, volume: &Volume, log: &Path) -> Result<tokio::process::Child> {
    let spec = pod.spec.as_ref().context("no spec")?;
    let command = spec.containers[0].command.clone().unwrap_or_default();
    let words = ["sh", "-c", WITH_VOLUME].map(str::to_owned).into_iter();
    let words = words.chain([volume.0.display().to_string(), volume.1.clone()]);
    let words: Vec<String> = words.chain(command).collect();
    let log = File::create(log)?;
    let mut container = tokio::process::Command::from(command_on(node, &words)?);
    container
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    Ok(container.spawn()?)
}

/// A directory with the files of a Secret, and where it is mounted.
struct Volume(PathBuf, String);

impl Volume {
    /// A Secret that does not exist keeps the pod waiting.
    async fn mount(client: &Client, node: &Node, pod: &Pod) -> Result<Self> {
        let spec = pod.spec.as_ref().context("no spec")?;
        let source = spec.volumes.as_ref().and_then(|volumes| volumes[0].secret.as_ref());
        let name = source
            .and_then(|source| source.secret_name.as_ref())
            .context("no Secret")?;
        let mounts = spec.containers[0].volume_mounts.as_ref().context("no mount")?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let secret = loop {
            if let Some(found) = secrets.get_opt(name).await? {
                break found;
            }
            tokio::time::sleep(POLL).await;
        };
        let volume = Self(
            node.root().join("volumes").join(pod.name_any()),
            mounts[0].mount_path.clone(),
        );
        std::fs::create_dir_all(&volume.0)?;
        for (key, value) in secret.data.unwrap_or_default() {
            let file = volume.0.join(key);
            std::fs::write(&file, value.0)?;
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o400))?;
        }
        Ok(volume)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Serves `/containerLogs/NAMESPACE/POD/CONTAINER`, which the API server asks for.
pub(crate) async fn serve_logs(unit: Arc<UnitHandle>) -> Result<()> {
    let tls = http_server::tls(&unit.node)?;
    let listener = TcpListener::bind((unit.node.server.address, PORT)).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (unit, tls) = (Arc::clone(&unit), tls.clone());
            tokio::spawn(async move {
                if unit.state().active != Active::Active {
                    return;
                }
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = service_fn(move |request| std::future::ready(answer(&unit, &request)));
                // An error is the end of the connection by the client.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(())
}

fn answer(unit: &UnitHandle, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let name = request.uri().path().split('/').nth(3).unwrap_or_default();
    Ok(Response::new(Full::from(std::fs::read(pod_log(&unit.node, name))?)))
}
