//! `--via pod`: a privileged pod on the node runs the script in the namespaces of process 1.
//!
//! The script comes as a Secret that is mounted as a file, because it may contain a token. The Secret is deleted when the pod has ended.
//! Meanwhile it is in the datastore, and in a snapshot that is taken in these seconds. The result is the log of the pod. The log is kept
//! on the node and is read by log collectors, so no secret is ever in it: a script that returns one is refused. Attach would return it
//! without a log, but needs a connection to the kubelet while the service restarts.
//!
//! What is created is always deleted ([`PodTask`]). Only a process that is killed leaves it behind. It is not in use any more once its
//! lifetime is over, which is an annotation, so a later command deletes it then.

mod status;
mod task;

use std::sync::Arc;
use std::time::Duration;

use client::clock::ServerClock;
use client::error::Error as UserError;
use client::request::{self, ListOptions, Metadata, Resource, SECRET, Write};
use futures::future::BoxFuture;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use self::status::{Named, RawNode};
use self::task::PodTask;
use crate::error::NodeProblem;
use crate::image;
use crate::script::Script;
use crate::shell::{NodeShell, Output};
use crate::target::NodeTarget;

/// Where the pods run. Its Pod Security level allows privileged pods.
const NAMESPACE: &str = "kube-system";
/// The label of everything of a run.
const RUN_LABEL: &str = "kubectl-rotation/run";
/// Everything of all runs.
const ALL: &str = "app.kubernetes.io/managed-by=kubectl-rotation,kubectl-rotation/run";
/// The annotation that says for how many seconds after its creation an object can be in use.
const LIFETIME: &str = "kubectl-rotation/lifetime-seconds";

const POD: Resource = Resource::new("Pod", "v1", "pods");
const NODE: Resource = Resource::new("Node", "v1", "nodes");
/// How long a pod may take to start, beyond the limit of the script.
const START: Duration = Duration::from_mins(1);
/// How long its requests may take, beyond the life of the pod.
const REQUESTS: Duration = Duration::from_mins(1);

/// What exists as long as a pod: the process does not end before it is dropped.
type Hold = Box<dyn Send>;

/// The pods of one run.
#[derive(Clone)]
pub struct NodePod {
    client: kube::Client,
    run: String,
    image: Option<String>,
    timeout: Duration,
    write: Write,
    hold: Arc<dyn Fn() -> Hold + Send + Sync>,
}

impl NodePod {
    /// Its flag.
    pub(crate) const WAY: &str = "--via pod";

    /// Pods that this client creates. `timeout` is `--node-timeout`; a pod has a minute more to start. `image` is `--image`; without it
    /// each node uses one that it has. `hold` returns what is dropped once the pod is deleted, which may be after its future was
    /// dropped: the process has to wait for it before it ends.
    pub fn new<H: Send + 'static>(
        client: kube::Client,
        run: &str,
        image: Option<String>,
        timeout: Duration,
        field_manager: &str,
        hold: impl Fn() -> H + Send + Sync + 'static,
    ) -> Self {
        Self {
            client,
            run: run.to_owned(),
            image,
            timeout,
            write: Write::by(field_manager),
            hold: Arc::new(move || Box::new(hold())),
        }
    }

    /// How long a script may take by this way, with the start of its pod and all requests.
    pub fn longest(timeout: Duration) -> Duration {
        timeout + START + REQUESTS
    }

    /// Deletes what killed processes have left: everything whose lifetime is over, and with `is_taken_over` everything of this run, of
    /// which no other process exists.
    pub async fn clean_up(&self, clock: &ServerClock, is_taken_over: bool) -> Result<(), UserError> {
        let options = ListOptions {
            namespace: Some(NAMESPACE),
            labels: Some(ALL),
            only_metadata: true,
            ..ListOptions::default()
        };
        for resource in [SECRET, POD] {
            let found: Vec<Named> = request::list_all(&self.client, resource, &options).await?;
            let now = clock.now().as_second();
            for Named { metadata } in found {
                let run = metadata.labels.as_ref().and_then(|labels| labels.get(RUN_LABEL));
                if is_over(&metadata, now) || is_taken_over && run == Some(&self.run) {
                    request::delete_any_version(&self.client, resource, &metadata.observed(), &self.write).await?;
                }
            }
        }
        Ok(())
    }

    async fn execute(&self, node: &NodeTarget, script: &Script) -> Result<Output, NodeProblem> {
        let image = self.image_on(node).await?;
        let name = format!("kubectl-rotation-{}-{:08x}", self.run, rand::rng().random::<u32>());
        let task = PodTask {
            secret: self.secret_body(&name, script),
            pod: self.pod_body(&name, node, &image),
            name,
            client: self.client.clone(),
            write: self.write.clone(),
            timeout: self.timeout,
        };
        let (sender, output) = oneshot::channel();
        let hold = (self.hold)();
        // A task of its own, which ends in the deletion although this future is dropped.
        tokio::spawn(async move {
            task.run(sender).await;
            drop(hold);
        });
        output.await.unwrap_or(Err(NodeProblem::Incomplete))
    }

    /// The image of a pod on this node.
    async fn image_on(&self, node: &NodeTarget) -> Result<String, NodeProblem> {
        let found: RawNode = request::require(&self.client, NODE, None, node.name())
            .await
            .map_err(api)?;
        if !found.is_ready() {
            // On a server of K3s or RKE2 that is down, there is no kubelet either.
            return Err(NodeProblem::NoPod(
                "the node is not ready, so no pod starts there".to_owned(),
            ));
        }
        if let Some(image) = &self.image {
            return Ok(image.clone());
        }
        image::choose(&found.images())
            .map(str::to_owned)
            .ok_or_else(|| NodeProblem::NoPod("the node has no image with sh and nsenter".to_owned()))
    }

    fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": NAMESPACE,
            "labels": { RUN_LABEL: self.run, "app.kubernetes.io/managed-by": "kubectl-rotation" },
            "annotations": { LIFETIME: Self::longest(self.timeout).as_secs().to_string() },
        })
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

/// Whether no process can use it any more. What says nothing about it is left alone.
fn is_over(metadata: &Metadata, now: i64) -> bool {
    let end = || {
        let lifetime: i64 = metadata.annotation(LIFETIME)?.parse().ok()?;
        Some(metadata.created()?.as_second().saturating_add(lifetime))
    };
    end().is_some_and(|end| now > end)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::in_use(json!({ LIFETIME: "150" }), 150, false)]
    #[case::over(json!({ LIFETIME: "150" }), 151, true)]
    #[case::not_ours(json!({}), 1_000_000, false)]
    #[case::malformed(json!({ LIFETIME: "soon" }), 1_000_000, false)]
    fn an_object_is_left_alone_while_a_process_may_use_it(
        #[case] annotations: Value,
        #[case] age: i64,
        #[case] expected: bool,
    ) {
        let metadata = json!({ "creationTimestamp": "1970-01-01T00:16:40Z", "annotations": annotations });
        let metadata: Metadata = serde_json::from_value(metadata).unwrap();
        assert_eq!(is_over(&metadata, 1000 + age), expected);
    }
}
