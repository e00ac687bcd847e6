//! `--via pod`, on an API that runs the script of each pod as a process of the node.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::clock::ServerClock;
use client::secret::Secret;
use http::{Method, Request, Response};
use kube::client::Body;
use node_access::{NodeAccess, NodePod, NodeProblem, NodeTarget, ServiceAction};
use serde_json::{Value, json};

use crate::machine::{Machine, PASSWORD, TOKEN, target};

/// The requests, and what is in the namespace.
#[derive(Default)]
struct Cluster {
    requests: Vec<String>,
    secret: Option<Value>,
    pod: Option<Value>,
    log: String,
    code: i32,
    never_starts: bool,
    /// The answer to the creation of the Secret is lost.
    loses_answer: bool,
    /// How many pods are not deleted yet.
    held: Arc<()>,
}

impl Cluster {
    fn deleted(&self) -> usize {
        let deleted = self.requests.iter().filter(|request| request.starts_with("DELETE"));
        deleted.count()
    }
}

fn client(machine: &Machine, cluster: Arc<Mutex<Cluster>>) -> kube::Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let login = machine.root().join("bin/login");
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let body: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
            let (code, text) = respond(&mut cluster.lock().unwrap(), &parts, body, &login);
            send.send_response(
                Response::builder()
                    .status(code)
                    .body(Body::from(text.into_bytes()))
                    .unwrap(),
            );
        }
    });
    kube::Client::new(service, "default")
}

fn respond(cluster: &mut Cluster, parts: &http::request::Parts, body: Value, login: &std::path::Path) -> (u16, String) {
    let path = parts.uri.path();
    cluster.requests.push(format!("{} {path}", parts.method));
    let created = |mut object: Value| {
        object["metadata"]["uid"] = json!("u");
        object["metadata"]["resourceVersion"] = json!("1");
        (201, object.to_string())
    };
    let missing = (
        404,
        json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 }).to_string(),
    );
    match (&parts.method, path.split('/').nth(5), path.ends_with("/log")) {
        (&Method::GET, None, _) => {
            let images = json!([{ "names": ["docker.io/rancher/mirrored-library-busybox:1.36"] }]);
            (
                200,
                json!({ "metadata": { "name": "s1" }, "status": { "images": images } }).to_string(),
            )
        }
        (&Method::POST, Some("secrets"), _) => {
            cluster.secret = Some(body.clone());
            if cluster.loses_answer {
                return (500, String::new());
            }
            created(body)
        }
        (&Method::POST, Some("pods"), _) => {
            let script = cluster.secret.as_ref().unwrap()["stringData"]["script"]
                .as_str()
                .unwrap();
            let output = {
                use std::io::Write as _;
                let mut child = Command::new(login)
                    .args(["s1", "sh", "-s"])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
                child.wait_with_output().unwrap()
            };
            cluster.log = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
            cluster.code = output.status.code().unwrap();
            cluster.pod = Some(body.clone());
            created(body)
        }
        (&Method::GET, Some(_), _) if path.split('/').count() == 6 => {
            let object = |name: &str, run: &str, lifetime: &str| {
                json!({ "metadata": {
                    "name": name, "namespace": "kube-system", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": { "kubectl-rotation/run": run },
                    "annotations": { "kubectl-rotation/lifetime-seconds": lifetime },
                }})
            };
            let long = "10000000000";
            let left = [
                object("own", "abcde", long),
                object("others", "survey", long),
                object("abandoned", "survey", "90"),
            ];
            (200, json!({ "metadata": {}, "items": left }).to_string())
        }
        (&Method::GET, Some("secrets"), _) if cluster.secret.is_some() => {
            let metadata = json!({ "name": "p", "namespace": "kube-system", "uid": "u", "resourceVersion": "1" });
            (200, json!({ "metadata": metadata }).to_string())
        }
        (&Method::GET, Some("pods"), _) if cluster.pod.is_none() => missing,
        (&Method::GET, Some("pods"), true) => (200, cluster.log.clone()),
        (&Method::GET, Some("pods"), false) => {
            let state = if cluster.never_starts {
                json!({ "waiting": { "reason": "ErrImagePull" } })
            } else {
                json!({ "terminated": { "exitCode": cluster.code } })
            };
            let phase = if cluster.never_starts { "Pending" } else { "Succeeded" };
            let status = json!({ "phase": phase, "containerStatuses": [{ "state": state }] });
            (
                200,
                json!({ "metadata": { "name": "p", "namespace": "kube-system", "uid": "u" }, "status": status })
                    .to_string(),
            )
        }
        (&Method::DELETE, ..) => (200, "{}".to_owned()),
        _ => missing,
    }
}

fn node_pod(machine: &Machine, cluster: &Arc<Mutex<Cluster>>) -> NodePod {
    let client = client(machine, Arc::clone(cluster));
    let limit = Duration::from_secs(20);
    let held = Arc::clone(&cluster.lock().unwrap().held);
    NodePod::new(client, "abcde", None, limit, "tests", move || Arc::clone(&held))
}

fn access(machine: &Machine, cluster: &Arc<Mutex<Cluster>>) -> (NodeAccess, NodeTarget) {
    let pod = node_pod(machine, cluster);
    (
        NodeAccess::new(Arc::new(pod), machine.options.clone(), "abcde"),
        target(),
    )
}

#[tokio::test]
async fn a_secret_goes_in_by_a_secret_and_never_into_the_log() {
    let (machine, cluster) = (Machine::new(), Arc::<Mutex<Cluster>>::default());
    let (access, node) = access(&machine, &cluster);
    let new = Secret::new("next-token-of-tests");
    access
        .write_token(&node, &machine.sha256(TOKEN), &new, None)
        .await
        .unwrap();
    assert!(machine.text(TOKEN).contains(new.expose()));
    assert!(access.read(&node, true).await.unwrap().server_token.is_some());

    let cluster = cluster.lock().unwrap();
    let pod = cluster.pod.as_ref().unwrap();
    assert!(!pod.to_string().contains(new.expose()), "the pod has the token");
    for token in [PASSWORD, new.expose()] {
        assert!(!cluster.log.contains(token), "the log has a token");
    }
    assert!(cluster.log.contains(" =end"), "there is no log");
    let spec = &pod["spec"];
    assert_eq!(
        (
            &spec["nodeName"],
            &spec["hostPID"],
            &spec["restartPolicy"],
            &spec["tolerations"][0]["operator"]
        ),
        (&json!("s1"), &json!(true), &json!("Never"), &json!("Exists"))
    );
    assert_eq!(
        spec["containers"][0]["image"],
        "docker.io/rancher/mirrored-library-busybox:1.36"
    );
    assert_eq!(pod["metadata"]["labels"]["kubectl-rotation/run"], "abcde");
    assert_eq!(
        pod["metadata"]["annotations"]["kubectl-rotation/lifetime-seconds"],
        "140"
    );
    assert_eq!(cluster.deleted(), 4, "{:?}", cluster.requests);
}

#[tokio::test]
async fn a_pod_returns_no_secret_and_restarts_by_systemd_run() {
    let (machine, cluster) = (Machine::new(), Arc::<Mutex<Cluster>>::default());
    machine.program(
        "systemd-run",
        "#!/bin/sh\necho \"systemd-run $*\" >>\"$KUBECTL_ROTATION_ROOT/calls\"\n",
    );
    let (access, node) = access(&machine, &cluster);
    let error = access.read_token(&node).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::NoSecret));
    assert!(cluster.lock().unwrap().requests.is_empty());
    access.service(&node, ServiceAction::Restart).await.unwrap();
    assert!(
        machine.calls().ends_with(
            "systemd-run --quiet --on-active=2 --timer-property=AccuracySec=100ms systemctl restart k3s.service\n"
        ),
        "{}",
        machine.calls()
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_start_is_deleted_with_its_reason() {
    let (machine, cluster) = (Machine::new(), Arc::<Mutex<Cluster>>::default());
    cluster.lock().unwrap().never_starts = true;
    let (access, node) = access(&machine, &cluster);
    let error = access.read(&node, false).await.unwrap_err();
    assert!(
        error.to_string().ends_with("the pod does not start: ErrImagePull"),
        "{error}"
    );
    let cluster = cluster.lock().unwrap();
    assert_eq!(cluster.deleted(), 2, "{:?}", cluster.requests);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_result_is_not_awaited_any_more_is_deleted() {
    let (machine, cluster) = (Machine::new(), Arc::<Mutex<Cluster>>::default());
    cluster.lock().unwrap().never_starts = true;
    let held = Arc::clone(&cluster.lock().unwrap().held);
    let (access, node) = access(&machine, &cluster);
    let before = Arc::strong_count(&held);
    let dropped = tokio::time::timeout(Duration::from_secs(5), access.read(&node, false)).await;
    assert!(dropped.is_err(), "the pod never starts");
    assert!(
        Arc::strong_count(&held) > before,
        "nothing is held while the pod exists"
    );
    while Arc::strong_count(&held) > before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cluster = cluster.lock().unwrap();
    let deleted: Vec<&str> = cluster
        .requests
        .iter()
        .filter_map(|request| request.strip_prefix("DELETE /api/v1/namespaces/kube-system/"))
        .collect();
    assert_eq!(deleted, ["secrets/p", "pods/p"]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_whose_creation_got_no_answer_is_deleted() {
    let (machine, cluster) = (Machine::new(), Arc::<Mutex<Cluster>>::default());
    cluster.lock().unwrap().loses_answer = true;
    let (access, node) = access(&machine, &cluster);
    let error = access.read(&node, false).await.unwrap_err();
    assert!(matches!(error.problem, NodeProblem::Api { .. }), "{error}");
    let cluster = cluster.lock().unwrap();
    assert_eq!(
        (cluster.deleted(), cluster.pod.is_none()),
        (1, true),
        "{:?}",
        cluster.requests
    );
}

#[tokio::test]
async fn what_killed_processes_have_left_is_deleted() {
    let deleted = async |is_taken_over| {
        let (machine, cluster) = (Machine::new(), Arc::<Mutex<Cluster>>::default());
        let pods = node_pod(&machine, &cluster);
        pods.clean_up(&ServerClock::default(), is_taken_over).await.unwrap();
        let cluster = cluster.lock().unwrap();
        let deleted = cluster
            .requests
            .iter()
            .filter_map(|request| request.strip_prefix("DELETE /api/v1/namespaces/kube-system/"));
        deleted.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(deleted(false).await, ["secrets/abandoned", "pods/abandoned"]);
    assert_eq!(
        deleted(true).await,
        ["secrets/own", "secrets/abandoned", "pods/own", "pods/abandoned"]
    );
}
