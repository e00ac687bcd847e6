use client::secret::{Fingerprint, Secret};
use rancher::Error;
use rancher::agent::{self, CredentialVariable, CredentialsContent, Placement, RolloutSettings};
use rancher::credential_name::Formula;
use rancher::token::Change;
use serde_json::{Value, json};

use crate::support::{SECRET_TOKEN, Server, fixture, list_of, observed, status, write};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/cattle-system/deployments/cattle-cluster-agent";
const PATCH: &str = "/apis/apps/v1/namespaces/cattle-system/deployments/cattle-cluster-agent?fieldManager=kubectl-crt";
const PODS: &str = "/api/v1/namespaces/cattle-system/pods?labelSelector=app%3Dcattle-cluster-agent&limit=500";
const SECRETS: &str = "/api/v1/namespaces/cattle-system/secrets";

async fn deployment(object: &Value) -> agent::Deployment {
    let server = Server::new().on("GET", DEPLOYMENT, 200, object);
    agent::deployment(&server.client()).await.unwrap().unwrap()
}

/// An agent of a release before `CATTLE_CREDENTIAL_NAME`.
fn without_variable() -> Value {
    let mut object = fixture("agent-status");
    let env = object["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array_mut()
        .unwrap();
    env.retain(|variable| variable["name"] != "CATTLE_CREDENTIAL_NAME");
    object
}

#[tokio::test]
async fn the_agents_deployment_is_read() {
    let agent = deployment(&fixture("agent-secret")).await;
    assert_eq!(agent.object.uid, "00d32a45-5bf1-453d-bb24-fdc9e9684bcd");
    assert_eq!(agent.volume_secret.as_deref(), Some("cattle-credentials-43cbefdd06"));
    assert_eq!(
        agent.variables,
        [CredentialVariable {
            container: "cluster-register".to_owned(),
            secret: "cattle-credentials-43cbefdd06".to_owned(),
        }]
    );
    assert!(agent.is_consistent() && agent.is_rolled_out() && agent.opens_both_tunnels);
    assert!(agent.strategy.keeps_old_pods(), "{:?}", agent.strategy);
    assert_eq!(
        agent.rollout,
        RolloutSettings {
            min_ready_seconds: 0,
            progress_deadline_seconds: 600
        }
    );
    assert_eq!(agent.restarted_at, None);
    assert_eq!(agent.server_url.as_deref(), Some("https://rancher.example.com"));
    assert_eq!((agent.generation, agent.observed_generation, agent.replicas), (3, 3, 1));
}

#[tokio::test]
async fn a_missing_deployment_is_none() {
    let server = Server::new().on("GET", DEPLOYMENT, 404, &status(404, "NotFound", "no"));
    assert!(agent::deployment(&server.client()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_rollout_in_progress_is_not_complete() {
    let mut object = fixture("agent-secret");
    for (field, value) in [
        ("observedGeneration", 2),
        ("replicas", 2),
        ("availableReplicas", 0),
        ("updatedReplicas", 0),
    ] {
        let before = object["status"][field].clone();
        object["status"][field] = json!(value);
        assert!(!deployment(&object).await.is_rolled_out(), "{field}");
        object["status"][field] = before;
    }
    assert!(deployment(&object).await.is_rolled_out());
}

#[tokio::test]
async fn strategies_that_remove_the_old_pod_first_are_recognized() {
    for (strategy, keeps) in [
        (
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } }),
            true,
        ),
        (
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "0%" } }),
            true,
        ),
        (
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 1 } }),
            false,
        ),
        (
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } }),
            false,
        ),
        (json!({ "type": "Recreate" }), false),
    ] {
        let mut object = fixture("agent-secret");
        object["spec"]["strategy"] = strategy.clone();
        assert_eq!(deployment(&object).await.strategy.keeps_old_pods(), keeps, "{strategy}");
    }
}

#[tokio::test]
async fn a_placement_is_one_strategic_merge_patch() {
    let agent = deployment(&fixture("agent-secret")).await;
    let server = Server::new().on("PATCH", PATCH, 200, &fixture("agent-secret"));
    let placement = Placement {
        secret: "cattle-credentials-0123456789".to_owned(),
        rollout: Some(RolloutSettings {
            min_ready_seconds: 1200,
            progress_deadline_seconds: 3600,
        }),
        restarted_at: Change::Set("2026-11-22T09:00:00Z".to_owned()),
        address: None,
    };
    agent::place(&server.client(), &agent, &placement, &write())
        .await
        .unwrap();
    let request = server.only();
    assert_eq!(
        request.headers["content-type"],
        "application/strategic-merge-patch+json"
    );
    assert_eq!(
        request.body,
        json!({
            "metadata": { "uid": "00d32a45-5bf1-453d-bb24-fdc9e9684bcd", "resourceVersion": "782" },
            "spec": {
                "minReadySeconds": 1200,
                "progressDeadlineSeconds": 3600,
                "template": {
                    "metadata": { "annotations": { "kubectl.kubernetes.io/restartedAt": "2026-11-22T09:00:00Z" } },
                    "spec": {
                        "volumes": [
                            { "name": "cattle-credentials", "secret": { "secretName": "cattle-credentials-0123456789" } },
                        ],
                        "containers": [{
                            "name": "cluster-register",
                            "env": [{ "name": "CATTLE_CREDENTIAL_NAME", "value": "cattle-credentials-0123456789" }],
                        }],
                    },
                },
            },
        })
    );
}

#[tokio::test]
async fn a_placement_adds_no_variable() {
    let agent = deployment(&without_variable()).await;
    assert_eq!(agent.variables, []);
    let server = Server::new().on("PATCH", PATCH, 200, &without_variable());
    let placement = Placement {
        secret: "cattle-credentials-0123456".to_owned(),
        ..Placement::default()
    };
    agent::place(&server.client(), &agent, &placement, &write())
        .await
        .unwrap();
    assert_eq!(
        server.only().body["spec"],
        json!({ "template": { "spec": { "volumes": [
            { "name": "cattle-credentials", "secret": { "secretName": "cattle-credentials-0123456" } },
        ] } } })
    );
}

#[tokio::test]
async fn a_deployment_without_the_volume_is_not_changed() {
    let mut object = fixture("agent-secret");
    object["spec"]["template"]["spec"]["volumes"] = json!([{ "name": "cattle-credentials", "emptyDir": {} }]);
    let agent = deployment(&object).await;
    let server = Server::new();
    let error = agent::place(&server.client(), &agent, &Placement::default(), &write())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::UnsupportedAgent { .. }));
    assert_eq!(
        error.to_string(),
        "the agent's Deployment cattle-system/cattle-cluster-agent has no volume cattle-credentials that names a Secret"
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_release_sets_only_the_rollout_settings() {
    let agent = deployment(&fixture("agent-secret")).await;
    let server = Server::new().on(
        "PATCH",
        &PATCH.replace('?', "?dryRun=All&"),
        200,
        &fixture("agent-secret"),
    );
    agent::release(
        &server.client(),
        &agent,
        RolloutSettings::default(),
        &write().dry_run(true),
    )
    .await
    .unwrap();
    assert_eq!(
        server.only().body["spec"],
        json!({ "minReadySeconds": 0, "progressDeadlineSeconds": 600 })
    );
}

#[tokio::test]
async fn pods_are_read_with_their_secret_and_state() {
    let pod = |name: &str, secret: &str| {
        json!({
            "metadata": {
                "name": name, "uid": format!("uid-{name}"), "labels": { "app": "cattle-cluster-agent" },
            },
            "spec": {
                "containers": [{ "name": "cluster-register" }],
                "volumes": [
                    { "name": "kube-api-access", "projected": {} },
                    { "name": "cattle-credentials", "secret": { "secretName": secret } },
                ],
            },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    };
    let mut terminating = pod("old", "cattle-credentials-aaaaaaaaaa");
    terminating["metadata"]["deletionTimestamp"] = json!("2026-11-22T06:00:00Z");
    let mut starting = pod("new", "cattle-credentials-bbbbbbbbbb");
    starting["status"] = json!({
        "phase": "Pending",
        "containerStatuses": [{ "state": { "waiting": { "reason": "ImagePullBackOff" } } }],
    });
    let mut evicted = pod("evicted", "cattle-credentials-aaaaaaaaaa");
    evicted["status"] = json!({ "phase": "Failed" });
    let server = Server::new().on("GET", PODS, 200, &list_of(&[terminating, starting, evicted]));
    let pods = agent::pods(&server.client()).await.unwrap();
    server.only();
    assert_eq!(pods[0].secret.as_deref(), Some("cattle-credentials-aaaaaaaaaa"));
    assert!(pods[0].ready && pods[0].terminating && !pods[0].finished);
    assert!(!pods[1].ready && !pods[1].terminating);
    assert_eq!(pods[1].waiting.as_deref(), Some("ImagePullBackOff"));
    assert!(pods[2].finished && !pods[2].ready);
}

#[tokio::test]
async fn the_formula_of_a_credentials_secret_is_recognized() {
    let name = "cattle-credentials-43cbefdd06";
    let server = Server::new().on("GET", &format!("{SECRETS}/{name}"), 200, &fixture("agent-credentials"));
    let secret = agent::credentials(&server.client(), name).await.unwrap().unwrap();
    assert_eq!(secret.token, Some(Secret::new(SECRET_TOKEN)));
    assert_eq!(secret.url.as_deref(), Some("https://rancher.example.com"));
    assert_eq!(secret.namespace, "c-gsrbc");
    assert_eq!(secret.formula(), Some(Formula::Sha256));
    assert_eq!(secret.problems, []);
}

#[tokio::test]
async fn a_trailing_line_break_is_reported() {
    let mut object = fixture("agent-credentials");
    object["data"]["token"] = json!("dG9rZW4K");
    let server = Server::new().on("GET", &format!("{SECRETS}/x"), 200, &object);
    let secret = agent::credentials(&server.client(), "x").await.unwrap().unwrap();
    assert_eq!(
        secret.problems[0].to_string(),
        "data.token has leading or trailing white space"
    );
    assert_eq!(
        secret.token,
        Some(Secret::new("token\n")),
        "unchanged, since that is what the agent sends"
    );
}

#[tokio::test]
async fn a_created_secret_equals_ranchers_own() {
    let server = Server::new().on(
        "POST",
        &format!("{SECRETS}?fieldManager=kubectl-crt"),
        201,
        &fixture("agent-credentials"),
    );
    let content = CredentialsContent {
        url: "https://rancher.example.com".to_owned(),
        token: Secret::new(SECRET_TOKEN),
        namespace: "c-gsrbc".to_owned(),
    };
    let annotations = [("example.com/run".to_owned(), "r1".to_owned())].into();
    agent::create_credentials(
        &server.client(),
        "cattle-credentials-43cbefdd06",
        &content,
        &annotations,
        &write(),
    )
    .await
    .unwrap();
    let mut ours = server.only().body;
    assert_eq!(ours["metadata"]["annotations"], json!({ "example.com/run": "r1" }));
    ours["metadata"] = json!({});
    let mut ranchers = fixture("agent-credentials");
    ranchers["metadata"] = json!({});
    assert_eq!(ours, ranchers);
}

#[tokio::test]
async fn a_secret_without_a_token_is_not_created() {
    let server = Server::new();
    let content = CredentialsContent {
        url: "https://r".to_owned(),
        token: Secret::new(""),
        namespace: String::new(),
    };
    let made = agent::create_credentials(&server.client(), "x", &content, &[].into(), &write()).await;
    assert!(matches!(made, Err(Error::BlankToken)));
}

#[tokio::test]
async fn a_secret_is_deleted_with_a_precondition() {
    let server = Server::new().on("DELETE", &format!("{SECRETS}/old"), 200, &json!({}));
    agent::delete_credentials(&server.client(), &observed("cattle-system", "old"), &write())
        .await
        .unwrap();
    assert_eq!(
        server.only().body["preconditions"],
        json!({ "uid": "7-of-9", "resourceVersion": "42" })
    );
}

#[tokio::test]
async fn stv_aggregation_names_the_token_of_the_connection() {
    let server = Server::new().on(
        "GET",
        &format!("{SECRETS}/stv-aggregation"),
        200,
        &fixture("stv-aggregation"),
    );
    let record = agent::stv_aggregation(&server.client()).await.unwrap().unwrap();
    assert!(record.names(Fingerprint::of(SECRET_TOKEN)));
    assert!(!record.names(Fingerprint::of("another")));
    assert_eq!(record.server_url.as_deref(), Some("https://rancher.example.com"));
}

#[tokio::test]
async fn stv_aggregation_with_two_tokens_names_neither() {
    let mut object = fixture("stv-aggregation");
    object["data"]["token"] = json!("Z2FyYmFnZQ==");
    let server = Server::new().on("GET", &format!("{SECRETS}/stv-aggregation"), 200, &object);
    let record = agent::stv_aggregation(&server.client()).await.unwrap().unwrap();
    assert!(!record.names(Fingerprint::of(SECRET_TOKEN)));
}

#[tokio::test]
async fn the_version_is_read() {
    let server = Server::new().on(
        "GET",
        "/version",
        200,
        &json!({ "gitVersion": "v1.36.3", "major": "1" }),
    );
    assert_eq!(agent::version(&server.client()).await.unwrap(), "v1.36.3");
}

#[tokio::test]
async fn a_disconnected_agent_is_recognized() {
    let text = "error trying to reach service: cluster agent disconnected";
    let server = Server::new().on_text("GET", "/version", 500, &[("content-type", "text/plain")], text);
    let error = agent::version(&server.client()).await.unwrap_err();
    assert_eq!(error.code(), Some(500));
    assert!(error.is_agent_disconnected());
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("cluster agent disconnected")
    );
}

#[tokio::test]
async fn rollout_settings_that_were_applied_by_hand_are_recognized() {
    let mut object = fixture("agent-secret");
    assert!(!deployment(&object).await.rollout_settings_were_applied());
    for (spec, expected) in [
        (json!({ "replicas": 1 }), false),
        (json!({ "progressDeadlineSeconds": 600 }), true),
        (json!({ "minReadySeconds": 10 }), true),
    ] {
        let last = json!({ "spec": spec }).to_string();
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!(last);
        assert_eq!(
            deployment(&object).await.rollout_settings_were_applied(),
            expected,
            "{spec}"
        );
    }
}

#[tokio::test]
async fn secrets_with_an_annotation_are_found_without_their_content() {
    let secret = |name: &str, run: &str| {
        json!({ "metadata": {
            "name": name, "namespace": "cattle-system", "uid": "u", "resourceVersion": "1", "annotations": { "run": run },
        } })
    };
    let all = list_of(&[
        secret("cattle-credentials-0123456789", "x7k2p"),
        secret("cattle-credentials-1234567890", "other"),
        secret("another", "x7k2p"),
    ]);
    let list = format!("{SECRETS}?limit=500");
    let server = Server::new().on("GET", &list, 200, &all);
    let found = agent::annotated_credentials(&server.client(), ("run", "x7k2p"))
        .await
        .unwrap();
    let names: Vec<_> = found.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["cattle-credentials-0123456789"]);
    let server = Server::new().on("GET", &list, 403, &status(403, "Forbidden", "no"));
    assert!(
        agent::annotated_credentials(&server.client(), ("run", "x7k2p"))
            .await
            .unwrap()
            .is_empty()
    );
}
