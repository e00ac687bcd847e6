use client::secret::{Fingerprint, Secret};
use rancher::Error;
use rancher::agent::{self, CredentialVariable, CredentialsContent, Hold, Placement};
use rancher::credential_name::Formula;
use rancher::token::Change;
use serde_json::{Value, json};

use crate::support::{SYSTEM_S, Server, fixture, list_of, observed, status, write};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/cattle-system/deployments/cattle-cluster-agent";
const PATCH: &str = "/apis/apps/v1/namespaces/cattle-system/deployments/cattle-cluster-agent?fieldManager=kubectl-crt";
const PODS: &str = "/api/v1/namespaces/cattle-system/pods?labelSelector=app%3Dcattle-cluster-agent&limit=500";
const SECRETS: &str = "/api/v1/namespaces/cattle-system/secrets";

async fn deployment(object: &Value) -> agent::Deployment {
    let server = Server::new().on("GET", DEPLOYMENT, 200, object);
    agent::deployment(&server.client()).await.unwrap().unwrap()
}

/// An agent of before `CATTLE_CREDENTIAL_NAME`.
fn without_variable() -> Value {
    let mut object = fixture("agent-plain");
    let env = object["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array_mut()
        .unwrap();
    env.retain(|variable| variable["name"] != "CATTLE_CREDENTIAL_NAME");
    object
}

#[tokio::test]
async fn the_agents_deployment_is_read_as_rancher_made_it() {
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
    assert!(agent.agrees_with_itself() && agent.settled() && agent.opens_both_tunnels);
    assert!(agent.strategy.keeps_old_pods(), "{:?}", agent.strategy);
    assert_eq!(
        agent.hold,
        Hold {
            min_ready_seconds: 0,
            progress_deadline_seconds: 600
        }
    );
    assert_eq!(agent.restarted_at, None);
    assert_eq!(agent.image.as_deref(), Some("rancher/rancher-agent:v2.15.0"));
    assert_eq!(agent.server_url.as_deref(), Some("https://rancher.example.com"));
    assert_eq!((agent.generation, agent.observed_generation, agent.replicas), (3, 3, 1));
}

#[tokio::test]
async fn a_cluster_without_an_agent_has_none() {
    let server = Server::new().on("GET", DEPLOYMENT, 404, &status(404, "NotFound", "no"));
    assert!(agent::deployment(&server.client()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_roll_out_under_way_is_not_settled() {
    let mut object = fixture("agent-secret");
    for (field, value) in [
        ("observedGeneration", 2),
        ("replicas", 2),
        ("availableReplicas", 0),
        ("updatedReplicas", 0),
    ] {
        let before = object["status"][field].clone();
        object["status"][field] = json!(value);
        assert!(!deployment(&object).await.settled(), "{field}");
        object["status"][field] = before;
    }
    assert!(deployment(&object).await.settled());
}

#[tokio::test]
async fn strategies_that_drop_the_old_pod_first_are_told_from_ranchers_own() {
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
async fn a_placement_is_one_strategic_patch_by_name() {
    let agent = deployment(&fixture("agent-secret")).await;
    let server = Server::new().on("PATCH", PATCH, 200, &fixture("agent-secret"));
    let placement = Placement {
        secret: "cattle-credentials-0123456789".to_owned(),
        hold: Some(Hold {
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
async fn an_agent_without_the_variable_does_not_get_one() {
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
async fn a_deployment_without_the_volume_is_left_alone() {
    let mut object = fixture("agent-secret");
    object["spec"]["template"]["spec"]["volumes"] = json!([{ "name": "cattle-credentials", "emptyDir": {} }]);
    let agent = deployment(&object).await;
    let server = Server::new();
    let error = agent::place(&server.client(), &agent, &Placement::default(), &write())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::StrangeAgent { .. }));
    assert_eq!(
        error.to_string(),
        "the agent's Deployment cattle-system/cattle-cluster-agent has no volume cattle-credentials that names a Secret"
    );
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_release_touches_the_two_hold_fields_only() {
    let agent = deployment(&fixture("agent-secret")).await;
    let server = Server::new().on(
        "PATCH",
        &PATCH.replace('?', "?dryRun=All&"),
        200,
        &fixture("agent-secret"),
    );
    agent::release(&server.client(), &agent, Hold::default(), &write().dry_run(true))
        .await
        .unwrap();
    assert_eq!(
        server.only().body["spec"],
        json!({ "minReadySeconds": 0, "progressDeadlineSeconds": 600 })
    );
}

#[tokio::test]
async fn pods_tell_what_they_have_mounted_and_whether_they_stay() {
    let pod = |name: &str, secret: &str| {
        json!({
            "metadata": {
                "name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-11-22T05:18:19Z",
                "labels": { "app": "cattle-cluster-agent", "pod-template-hash": "867cdd7dfc" },
                "ownerReferences": [{ "kind": "ReplicaSet", "name": "cattle-cluster-agent-867cdd7dfc", "uid": "rs" }],
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
    let mut ending = pod("old", "cattle-credentials-aaaaaaaaaa");
    ending["metadata"]["deletionTimestamp"] = json!("2026-11-22T06:00:00Z");
    let mut starting = pod("new", "cattle-credentials-bbbbbbbbbb");
    starting["status"] = json!({
        "phase": "Pending",
        "containerStatuses": [{ "restartCount": 2, "state": { "waiting": { "reason": "ImagePullBackOff" } } }],
    });
    let mut evicted = pod("evicted", "cattle-credentials-aaaaaaaaaa");
    evicted["status"] = json!({ "phase": "Failed" });
    let server = Server::new().on("GET", PODS, 200, &list_of(&[ending, starting, evicted]));
    let pods = agent::pods(&server.client()).await.unwrap();
    server.only();
    assert_eq!(pods[0].secret.as_deref(), Some("cattle-credentials-aaaaaaaaaa"));
    assert!(pods[0].ready && pods[0].terminating && !pods[0].finished);
    assert_eq!(pods[0].template_hash.as_deref(), Some("867cdd7dfc"));
    assert_eq!(pods[0].replica_set.as_deref(), Some("cattle-cluster-agent-867cdd7dfc"));
    assert_eq!(pods[0].created.unwrap().to_string(), "2026-11-22T05:18:19Z");
    assert!(!pods[1].ready && !pods[1].terminating);
    assert_eq!(
        (pods[1].waiting.as_deref(), pods[1].restarts),
        (Some("ImagePullBackOff"), 2)
    );
    assert!(pods[2].finished && !pods[2].ready);
}

#[tokio::test]
async fn the_agents_secret_tells_how_it_was_named() {
    let name = "cattle-credentials-43cbefdd06";
    let server = Server::new().on("GET", &format!("{SECRETS}/{name}"), 200, &fixture("agent-credentials"));
    let secret = agent::credentials(&server.client(), name).await.unwrap().unwrap();
    assert_eq!(secret.token, Some(Secret::new(SYSTEM_S)));
    assert_eq!(secret.url.as_deref(), Some("https://rancher.example.com"));
    assert_eq!(secret.namespace, "c-gsrbc");
    assert_eq!(secret.formula(), Some(Formula::Sha256));
    assert_eq!(secret.problems, []);
}

#[tokio::test]
async fn the_line_break_of_a_value_encoded_by_hand_is_seen() {
    let mut object = fixture("agent-credentials");
    object["data"]["token"] = json!("dG9rZW4K");
    let server = Server::new().on("GET", &format!("{SECRETS}/x"), 200, &object);
    let secret = agent::credentials(&server.client(), "x").await.unwrap().unwrap();
    assert_eq!(
        secret.problems[0].to_string(),
        "data.token has white space or a line break around it"
    );
    assert_eq!(
        secret.token,
        Some(Secret::new("token\n")),
        "as it is, for that is what the agent sends"
    );
}

#[tokio::test]
async fn only_the_agents_own_secrets_are_listed() {
    let other = json!({ "metadata": { "name": "stv-aggregation", "namespace": "cattle-system" }, "data": {} });
    let mut broken = fixture("agent-credentials");
    broken["metadata"]["name"] = json!("cattle-credentials-broken");
    broken["data"] = json!({ "token": 5 });
    let server = Server::new().on(
        "GET",
        &format!("{SECRETS}?fieldSelector=type%3DOpaque&limit=500"),
        200,
        &list_of(&[other, fixture("agent-credentials"), broken]),
    );
    let secrets = agent::list_credentials(&server.client()).await.unwrap();
    let names: Vec<_> = secrets.iter().map(|secret| secret.object.name.as_str()).collect();
    assert_eq!(names, ["cattle-credentials-43cbefdd06", "cattle-credentials-broken"]);
    assert_eq!((&secrets[1].token, secrets[1].problems.len()), (&None, 1));
}

#[tokio::test]
async fn a_secret_for_the_agent_is_made_like_ranchers_own() {
    let server = Server::new().on(
        "POST",
        &format!("{SECRETS}?fieldManager=kubectl-crt"),
        201,
        &fixture("agent-credentials"),
    );
    let content = CredentialsContent {
        url: "https://rancher.example.com".to_owned(),
        token: Secret::new(SYSTEM_S),
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
async fn a_secret_without_a_token_is_not_made() {
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
async fn a_spare_secret_is_deleted_by_uid() {
    let server = Server::new().on("DELETE", &format!("{SECRETS}/spare"), 200, &json!({}));
    agent::delete_credentials(&server.client(), &observed("cattle-system", "spare"), &write())
        .await
        .unwrap();
    assert_eq!(
        server.only().body["preconditions"],
        json!({ "uid": "7-of-9", "resourceVersion": "42" })
    );
}

#[tokio::test]
async fn the_agents_own_record_names_the_token_it_connected_with() {
    let server = Server::new().on(
        "GET",
        &format!("{SECRETS}/stv-aggregation"),
        200,
        &fixture("stv-aggregation"),
    );
    let record = agent::stv_aggregation(&server.client()).await.unwrap().unwrap();
    assert!(record.names(Fingerprint::of(SYSTEM_S)));
    assert!(!record.names(Fingerprint::of("another")));
    assert_eq!(record.server_url.as_deref(), Some("https://rancher.example.com"));
    assert_eq!(
        record.tunnel_url.as_deref(),
        Some("https://rancher.example.com/v3/connect")
    );
    assert_eq!(record.problems, []);
}

#[tokio::test]
async fn a_record_that_contradicts_itself_names_no_token() {
    let mut object = fixture("stv-aggregation");
    object["data"]["token"] = json!("Z2FyYmFnZQ==");
    let server = Server::new().on("GET", &format!("{SECRETS}/stv-aggregation"), 200, &object);
    let record = agent::stv_aggregation(&server.client()).await.unwrap().unwrap();
    assert!(!record.names(Fingerprint::of(SYSTEM_S)));
    assert_eq!(
        record.problems[0].to_string(),
        "data.token does not begin with stv-cluster-"
    );
}

#[tokio::test]
async fn a_call_that_goes_all_the_way_answers_with_the_version() {
    let server = Server::new().on(
        "GET",
        "/version",
        200,
        &json!({ "gitVersion": "v1.36.3", "major": "1" }),
    );
    assert_eq!(agent::version(&server.client()).await.unwrap(), "v1.36.3");
}

#[tokio::test]
async fn a_tunnel_without_an_agent_is_an_error_with_ranchers_words() {
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
