//! `--via pod`: a privileged pod on the node runs the script in the namespaces of process 1.
//!
//! The script comes as a Secret that is mounted as a file, because it may contain a token. The Secret is deleted when the pod has ended.
//! Meanwhile it is in the datastore, and in a snapshot that is taken in these seconds. The result is the log of the pod. The log is kept
//! on the node and is read by log collectors, so no secret is ever in it: a script that returns one is refused. Attach would return it
//! without a log, but needs a connection to the kubelet while the service restarts.

use std::time::Duration;

use client::error::Error as UserError;
use client::request::{self, Item, ListOptions, Metadata, Resource, SECRET, Write};
use futures::future::BoxFuture;
use rand::RngExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::error::NodeProblem;
use crate::image;
use crate::script::Script;
use crate::shell::{NodeShell, Output};
use crate::target::NodeTarget;

/// Where the pods run. Its Pod Security level allows privileged pods.
pub const NAMESPACE: &str = "kube-system";
/// The label of everything of a run.
pub const RUN_LABEL: &str = "kubectl-rotation/run";

const POD: Resource = Resource::new("Pod", "v1", "pods");
const NODE: Resource = Resource::new("Node", "v1", "nodes");
/// How long a pod may take to start, beyond the limit of the script.
const START: Duration = Duration::from_mins(1);
/// How often the state of a pod is read.
const INTERVAL: Duration = Duration::from_millis(300);
/// The most bytes of a log that are read.
const LIMIT: usize = 1 << 20;

/// The pods of one run.
#[derive(Clone)]
pub struct NodePod {
    client: kube::Client,
    run: String,
    image: Option<String>,
    timeout: Duration,
    owner: Option<Value>,
    write: Write,
}

impl NodePod {
    /// Its flag.
    pub(crate) const WAY: &str = "--via pod";

    /// Pods that this client creates. `timeout` is `--node-timeout`; a pod has a minute more to start. `image` is `--image`; without it
    /// each node uses one that it has.
    pub fn new(client: kube::Client, run: &str, image: Option<String>, timeout: Duration, field_manager: &str) -> Self {
        Self {
            client,
            run: run.to_owned(),
            image,
            timeout,
            owner: None,
            write: Write::by(field_manager),
        }
    }

    /// Sets an owner in the same namespace, such as the Lease, with which they are deleted.
    #[must_use]
    pub fn owned_by(mut self, api_version: &str, kind: &str, name: &str, uid: &str) -> Self {
        self.owner = Some(json!([{ "apiVersion": api_version, "kind": kind, "name": name, "uid": uid }]));
        self
    }

    /// Deletes what a killed process of this run has left.
    pub async fn clean_up(&self) -> Result<(), UserError> {
        let labels = format!("{RUN_LABEL}={}", self.run);
        let options = ListOptions {
            namespace: Some(NAMESPACE),
            labels: Some(&labels),
            only_metadata: true,
            ..ListOptions::default()
        };
        for resource in [SECRET, POD] {
            let left: Vec<Named> = request::list_all(&self.client, resource, &options).await?;
            for object in left {
                request::delete_any_version(&self.client, resource, &object.metadata.observed(), &self.write).await?;
            }
        }
        Ok(())
    }

    async fn execute(&self, node: &NodeTarget, script: &Script) -> Result<Output, NodeProblem> {
        let image = match &self.image {
            Some(image) => image.clone(),
            None => self.image_of(node).await?,
        };
        let name = format!("kubectl-rotation-{}-{:08x}", self.run, rand::rng().random::<u32>());
        let body = self.secret_body(&name, script);
        let secret: Named = request::create(&self.client, SECRET, Some(NAMESPACE), &name, &body, &self.write)
            .await
            .map_err(api)?;
        let output = self.run_pod(&name, node, &image).await;
        // First what may contain a token, then the rest, whatever happened.
        let deleted = self.delete(SECRET, &secret.metadata).await;
        let output = output?;
        deleted?;
        Ok(output)
    }

    async fn run_pod(&self, name: &str, node: &NodeTarget, image: &str) -> Result<Output, NodeProblem> {
        let body = self.pod_body(name, node, image);
        let pod: RawPod = request::create(&self.client, POD, Some(NAMESPACE), name, &body, &self.write)
            .await
            .map_err(api)?;
        let output = self.result(name).await;
        let deleted = self.delete(POD, &pod.metadata).await;
        let output = output?;
        deleted?;
        Ok(output)
    }

    async fn delete(&self, resource: Resource, metadata: &Metadata) -> Result<(), NodeProblem> {
        request::delete_any_version(&self.client, resource, &metadata.observed(), &self.write)
            .await
            .map_err(api)
    }

    /// Waits for the end of the pod, and reads its log.
    async fn result(&self, name: &str) -> Result<Output, NodeProblem> {
        let limit = self.timeout + START;
        let end = Instant::now() + limit;
        let mut waiting = Some("no kubelet has accepted it".to_owned());
        let status = loop {
            // The API may be away while a server restarts.
            if let Ok(Some(pod)) = request::get::<RawPod>(&self.client, POD, Some(NAMESPACE), name).await {
                if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
                    break pod.status;
                }
                if !pod.status.container_statuses.is_empty() {
                    waiting = pod.status.waiting();
                }
            }
            if Instant::now() >= end {
                return Err(match waiting {
                    Some(reason) => NodeProblem::Pod(format!("the pod does not start: {reason}")),
                    None => NodeProblem::TimedOut(limit),
                });
            }
            sleep(INTERVAL).await;
        };
        let code = status.exit_code();
        if code.is_none() {
            return Err(NodeProblem::Pod(status.reason()));
        }
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/log?container=script&limitBytes={LIMIT}");
        let log = loop {
            match request::get_text(&self.client, "the log of", &path).await {
                Ok(log) => break log,
                Err(error) if Instant::now() >= end => return Err(api(error)),
                Err(_) => sleep(INTERVAL).await,
            }
        };
        if log.len() >= LIMIT {
            return Err(NodeProblem::TooMuchOutput(LIMIT));
        }
        // The log has both streams. A record begins with @.
        let errors = log.lines().filter(|line| !line.starts_with('@')).collect::<Vec<_>>();
        Ok(Output {
            stderr: Zeroizing::new(errors.join("\n")),
            stdout: Zeroizing::new(log.into_bytes()),
            code,
        })
    }

    async fn image_of(&self, node: &NodeTarget) -> Result<String, NodeProblem> {
        let found: NodeImages = request::require(&self.client, NODE, None, node.name())
            .await
            .map_err(api)?;
        let names: Vec<Vec<String>> = found.status.images.into_iter().map(|image| image.names).collect();
        image::choose(&names)
            .map(str::to_owned)
            .ok_or_else(|| NodeProblem::Pod("the node has no image with sh and nsenter".to_owned()))
    }

    fn metadata(&self, name: &str) -> Value {
        let mut metadata = json!({
            "name": name,
            "namespace": NAMESPACE,
            "labels": { RUN_LABEL: self.run, "app.kubernetes.io/managed-by": "kubectl-rotation" },
        });
        if let Some(owner) = &self.owner {
            metadata["ownerReferences"] = owner.clone();
        }
        metadata
    }

    fn secret_body(&self, name: &str, script: &Script) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": self.metadata(name),
            "immutable": true,
            "stringData": { "script": script.text() },
        })
    }

    fn pod_body(&self, name: &str, node: &NodeTarget, image: &str) -> Value {
        // The shell of the image opens the file, the shell of the node reads it.
        let command = "exec nsenter -t 1 -m -u -i -n -- sh -s </run/kubectl-rotation/script";
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": self.metadata(name),
            "spec": {
                "nodeName": node.name(),
                "hostPID": true,
                "restartPolicy": "Never",
                "activeDeadlineSeconds": (self.timeout + START).as_secs(),
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "tolerations": [{ "operator": "Exists" }],
                "containers": [{
                    "name": "script",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", command],
                    "securityContext": { "privileged": true, "runAsUser": 0 },
                    "volumeMounts": [{ "name": "script", "mountPath": "/run/kubectl-rotation", "readOnly": true }],
                }],
                "volumes": [{ "name": "script", "secret": { "secretName": name, "defaultMode": 256 } }],
            },
        })
    }
}

impl NodeShell for NodePod {
    fn way(&self) -> &'static str {
        Self::WAY
    }

    fn returns_secrets(&self) -> bool {
        false
    }

    fn restart_delay(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn run<'a>(&'a self, node: &'a NodeTarget, script: &'a Script) -> BoxFuture<'a, Result<Output, NodeProblem>> {
        Box::pin(self.execute(node, script))
    }
}

fn api(error: request::Error) -> NodeProblem {
    NodeProblem::Api {
        what: error.to_string(),
        source: Box::new(error.into()),
    }
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

impl Item for Named {}

#[derive(Deserialize)]
struct RawPod {
    metadata: Metadata,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    reason: Option<String>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    state: ContainerState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    waiting: Option<Waiting>,
    terminated: Option<Terminated>,
}

#[derive(Deserialize)]
struct Waiting {
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    exit_code: i32,
}

impl PodStatus {
    fn exit_code(&self) -> Option<i32> {
        let state = &self.container_statuses.first()?.state;
        state.terminated.as_ref().map(|terminated| terminated.exit_code)
    }

    fn waiting(&self) -> Option<String> {
        let state = &self.container_statuses.first()?.state;
        state.waiting.as_ref()?.reason.clone()
    }

    fn reason(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or(&self.phase);
        format!("the pod ended before its script ran: {reason}")
    }
}

#[derive(Deserialize)]
struct NodeImages {
    #[serde(default)]
    status: Images,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Images {
    images: Vec<ImageNames>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ImageNames {
    names: Vec<String>,
}
