use rancher::Error;
use rancher::cluster::{self, ClusterKind, ConditionStatus, Redeploy, Rendered};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Server, fixture, id, list_of, observed, status, write};

const CLUSTERS: &str = "/apis/management.cattle.io/v3/clusters";
const ALL: &str = "/apis/management.cattle.io/v3/clusters?limit=500";

fn named(id: &str, display_name: &str) -> Value {
    json!({ "metadata": { "name": id }, "spec": { "displayName": display_name } })
}

async fn read(object: Value) -> cluster::Cluster {
    let server = Server::new().on("GET", &format!("{CLUSTERS}/c-gsrbc"), 200, &object);
    cluster::get(&server.client(), &id("c-gsrbc")).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_imported_cluster_is_read() {
    let cluster = read(fixture("cluster-secret")).await;
    assert_eq!(cluster.id.as_str(), "c-gsrbc");
    assert_eq!(cluster.display_name, "dn1");
    assert_eq!(cluster.kind, ClusterKind::Imported);
    assert_eq!(cluster.object.uid, "8cb987e0-cb50-45e2-bc7a-ec164c84f022");
    assert_eq!(cluster.object.resource_version, "1825");
    assert_eq!(cluster.applied_token.unwrap().to_string(), "739e2d9420");
    assert_eq!(cluster.connected(), Some(ConditionStatus::True));
    assert_eq!(cluster.agent_image.as_deref(), Some("rancher/rancher-agent:v2.15.0"));
    assert!(!cluster.pre_bootstrap(), "PreBootstrapped is Unknown, not False");
    assert!(!cluster.force_deploy && !cluster.deleting);
}

#[tokio::test]
async fn a_cluster_without_spec_and_status_was_never_connected() {
    let cluster = read(json!({ "metadata": { "name": "c-gsrbc" }, "spec": null })).await;
    assert_eq!(cluster.connected(), None);
    assert_eq!(cluster.kind, ClusterKind::Unknown);
    assert_eq!(cluster.redeploy_pending(&Rendered::default()), [Redeploy::NotDeployed]);
}

#[tokio::test]
async fn malformed_fields_of_a_cluster_are_ignored() {
    let mut object = fixture("cluster-secret");
    object["metadata"]["annotations"]["io.cattle.agent.registration-token-hash"] = json!("0123456789abcdef");
    object["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    let cluster = read(object).await;
    assert_eq!(cluster.applied_token, None);
    assert!(cluster.is("Ready"));
}

#[rstest]
#[case::generic("c-abcde", json!({}), json!({ "driver": "imported" }), ClusterKind::Imported)]
#[case::k3s("c-abcde", json!({}), json!({ "driver": "k3s", "provider": "k3s" }), ClusterKind::Imported)]
#[case::rke2("c-abcde", json!({}), json!({ "driver": "rke2", "provider": "rke2" }), ClusterKind::Imported)]
#[case::provisioned("c-m-abcdefgh", json!({}), json!({ "driver": "rke2" }), ClusterKind::Provisioned)]
#[case::eks("c-abcde", json!({}), json!({ "driver": "EKS" }), ClusterKind::Hosted(cluster_provider("eks")))]
#[case::aks("c-abcde", json!({}), json!({ "driver": "AKS" }), ClusterKind::Hosted(cluster_provider("aks")))]
#[case::gke("c-abcde", json!({}), json!({ "driver": "GKE" }), ClusterKind::Hosted(cluster_provider("gke")))]
#[case::harvester("c-abcde", json!({}), json!({ "driver": "imported", "provider": "harvester" }), ClusterKind::Harvester)]
#[case::internal("c-abcde", json!({ "internal": true }), json!({ "driver": "k3s" }), ClusterKind::Local)]
#[case::local("local", json!({}), json!({}), ClusterKind::Local)]
#[case::rke1("c-abcde", json!({}), json!({ "driver": "rancherKubernetesEngine" }), ClusterKind::Rke1)]
#[case::new_driver("c-abcde", json!({}), json!({ "driver": "teapot" }), ClusterKind::Unknown)]
#[tokio::test]
async fn every_kind_of_cluster_is_recognized(
    #[case] name: &str,
    #[case] spec: Value,
    #[case] status: Value,
    #[case] kind: ClusterKind,
) {
    let cluster = read(json!({ "metadata": { "name": name }, "spec": spec, "status": status })).await;
    assert_eq!(cluster.kind, kind);
}

fn cluster_provider(name: &str) -> cluster::Provider {
    match name {
        "eks" => cluster::Provider::Eks,
        "aks" => cluster::Provider::Aks,
        _ => cluster::Provider::Gke,
    }
}

#[tokio::test]
async fn a_provisioned_cluster_is_recognized_by_its_annotation() {
    let cluster = read(json!({
        "metadata": { "name": "c-abcde", "annotations": { "provisioning.cattle.io/administrated": "true" } },
        "status": { "driver": "k3s" },
    }))
    .await;
    assert_eq!(cluster.kind, ClusterKind::Provisioned);
}

#[rstest]
#[case("c-gsrbc", true)]
#[case("c-m-abc12345", true)]
#[case("local", true)]
#[case("", false)]
#[case("C-GSRBC", false)]
#[case("-c", false)]
#[case("c-", false)]
#[case("c_gsrbc", false)]
#[case("c/../secrets", false)]
#[case("a23456789012345678901234567890123456789012345678901234567890123", true)]
#[case("a234567890123456789012345678901234567890123456789012345678901234", false)]
fn a_cluster_id_is_a_valid_namespace_name(#[case] text: &str, #[case] fits: bool) {
    assert_eq!(text.parse::<rancher::ClusterId>().is_ok(), fits);
}

#[tokio::test]
async fn an_unchanged_cluster_has_no_redeploy_pending() {
    let cluster = read(fixture("cluster-secret")).await;
    let rendered = Rendered {
        agent_image: Some("rancher/rancher-agent:v2.15.0"),
        tokens: &["739e2d9420".parse().unwrap()],
    };
    assert_eq!(cluster.redeploy_pending(&rendered), []);
}

#[tokio::test]
async fn the_previous_token_explains_the_applied_hash() {
    let cluster = read(fixture("cluster-secret")).await;
    let tokens = ["0000000000".parse().unwrap(), "739e2d9420".parse().unwrap()];
    let explained = Rendered {
        agent_image: None,
        tokens: &tokens,
    };
    assert_eq!(cluster.redeploy_pending(&explained), []);
    let alone = Rendered {
        agent_image: None,
        tokens: &tokens[..1],
    };
    let reasons: Vec<_> = cluster
        .redeploy_pending(&alone)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        reasons,
        ["Rancher is about to apply token 0000000000 instead of 739e2d9420"]
    );
}

#[tokio::test]
async fn every_reason_for_a_redeploy_is_reported() {
    let mut object = fixture("cluster-status");
    object["metadata"]["annotations"]["io.cattle.agent.force.deploy"] = json!("true");
    object["status"]["conditions"] = json!([{ "type": "AgentDeployed", "status": "Unknown" }]);
    let reasons: Vec<_> = read(object)
        .await
        .redeploy_pending(&Rendered {
            agent_image: Some("rancher/rancher-agent:v2.12.1"),
            tokens: &[],
        })
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        reasons,
        [
            "Rancher has not finished deploying the agent (condition AgentDeployed is not True)",
            "a forced redeploy of the agent is pending (io.cattle.agent.force.deploy)",
            "Rancher is about to change the agent's image from rancher/rancher-agent:v2.12.0 to rancher/rancher-agent:v2.12.1",
        ]
    );
}

#[tokio::test]
async fn an_image_with_a_registry_prefix_is_the_same_image() {
    let mut object = fixture("cluster-secret");
    object["status"]["agentImage"] = json!("registry.example.com/rancher/rancher-agent:v2.15.0");
    let rendered = Rendered {
        agent_image: Some("rancher/rancher-agent:v2.15.0"),
        tokens: &[],
    };
    assert_eq!(read(object.clone()).await.redeploy_pending(&rendered), []);
    object["status"]["agentImage"] = json!("notrancher/rancher-agent:v2.15.0");
    assert_eq!(read(object).await.redeploy_pending(&rendered).len(), 1);
}

#[tokio::test]
async fn the_image_of_the_clusters_spec_takes_precedence() {
    let mut object = fixture("cluster-secret");
    object["spec"]["desiredAgentImage"] = json!("fixed");
    assert_eq!(read(object.clone()).await.desired_agent_image, None);
    object["spec"]["agentImageOverride"] = json!("mine/agent:1");
    assert_eq!(read(object).await.desired_agent_image.as_deref(), Some("mine/agent:1"));
}

#[tokio::test]
async fn a_cluster_is_found_by_its_id_in_one_request() {
    let server = Server::new().on("GET", &format!("{CLUSTERS}/c-gsrbc"), 200, &fixture("cluster-secret"));
    let found = cluster::find(&server.client(), "c-gsrbc").await.unwrap();
    assert_eq!(found.display_name, "dn1");
    server.only();
}

#[tokio::test]
async fn a_cluster_is_found_by_its_display_name() {
    let server = Server::new()
        .on(
            "GET",
            &format!("{CLUSTERS}/edge-7"),
            404,
            &status(404, "NotFound", "no"),
        )
        .on(
            "GET",
            ALL,
            200,
            &list_of(&[named("c-aaaaa", "edge-6"), named("c-bbbbb", "edge-7")]),
        );
    assert_eq!(
        cluster::find(&server.client(), "edge-7").await.unwrap().id,
        id("c-bbbbb")
    );
    server.requests();
}

#[tokio::test]
async fn a_display_name_is_never_part_of_a_path() {
    let server = Server::new().on("GET", ALL, 200, &list_of(&[named("c-aaaaa", "Büro Süd")]));
    assert_eq!(
        cluster::find(&server.client(), "Büro Süd").await.unwrap().id,
        id("c-aaaaa")
    );
    server.only();
}

#[tokio::test]
async fn a_cluster_is_found_by_its_provisioning_object() {
    let server = Server::new()
        .on(
            "GET",
            "/apis/provisioning.cattle.io/v1/namespaces/fleet-default/clusters/prod",
            200,
            &json!({ "metadata": { "name": "prod" }, "status": { "clusterName": "c-m-abc12345" } }),
        )
        .on(
            "GET",
            &format!("{CLUSTERS}/c-m-abc12345"),
            200,
            &named("c-m-abc12345", "prod"),
        );
    assert_eq!(
        cluster::find(&server.client(), "fleet-default/prod").await.unwrap().id,
        id("c-m-abc12345")
    );
    server.requests();
}

#[tokio::test]
async fn a_server_without_provisioning_clusters_finds_none() {
    let server = Server::new()
        .on_text(
            "GET",
            "/apis/provisioning.cattle.io/v1/namespaces/fleet-default/clusters/prod",
            404,
            &[],
            "404 page not found",
        )
        .on("GET", ALL, 200, &list_of(&[]));
    let error = cluster::find(&server.client(), "fleet-default/prod").await.unwrap_err();
    assert!(matches!(error, Error::ClusterNotFound { .. }), "{error}");
    server.requests();
}

#[tokio::test]
async fn an_ambiguous_name_lists_the_candidates() {
    let server = Server::new()
        .on("GET", &format!("{CLUSTERS}/prod"), 404, &status(404, "NotFound", "no"))
        .on(
            "GET",
            ALL,
            200,
            &list_of(&[
                named("c-aaaaa", "prod"),
                named("c-bbbbb", "test"),
                named("c-ccccc", "prod"),
            ]),
        );
    let error = cluster::find(&server.client(), "prod").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"2 clusters have the name "prod": c-aaaaa (prod), c-ccccc (prod)"#
    );
}

#[tokio::test]
async fn a_similar_name_is_suggested() {
    let server = Server::new()
        .on(
            "GET",
            &format!("{CLUSTERS}/edge-berln"),
            404,
            &status(404, "NotFound", "no"),
        )
        .on(
            "GET",
            ALL,
            200,
            &list_of(&[named("c-aaaaa", "edge-berlin"), named("c-bbbbb", "central")]),
        );
    let error = cluster::find(&server.client(), "edge-berln").await.unwrap_err();
    let error = client::error::Error::from(error);
    assert_eq!(error.to_string(), r#"error: cluster "edge-berln" not found"#);
    assert_eq!(error.hints, [r#"did you mean "edge-berlin"?"#]);
}

#[tokio::test]
async fn clusters_are_listed_in_pages_and_by_selector() {
    let mut first = list_of(&[named("c-aaaaa", "one")]);
    first["metadata"]["continue"] = json!("more");
    let server = Server::new()
        .on(
            "GET",
            &format!("{CLUSTERS}?labelSelector=env%3Dprod&limit=500"),
            200,
            &first,
        )
        .on(
            "GET",
            &format!("{CLUSTERS}?labelSelector=env%3Dprod&limit=500&continue=more"),
            200,
            &list_of(&[named("c-bbbbb", "two")]),
        );
    let all = cluster::list(&server.client(), Some("env=prod")).await.unwrap();
    assert_eq!(
        all.iter().map(|c| c.display_name.as_str()).collect::<Vec<_>>(),
        ["one", "two"]
    );
    server.requests();
}

#[tokio::test]
async fn an_expired_page_continues_with_the_offered_token() {
    let mut first = list_of(&[named("c-aaaaa", "one")]);
    first["metadata"]["continue"] = json!("old");
    let mut expired = status(410, "Expired", "The provided continue parameter is too old");
    expired["metadata"] = json!({ "continue": "fresh" });
    let server = Server::new()
        .on("GET", ALL, 200, &first)
        .on("GET", &format!("{ALL}&continue=old"), 410, &expired)
        .on(
            "GET",
            &format!("{ALL}&continue=fresh"),
            200,
            &list_of(&[named("c-bbbbb", "two")]),
        );
    assert_eq!(cluster::list(&server.client(), None).await.unwrap().len(), 2);
    server.requests();
}

#[tokio::test]
async fn a_malformed_cluster_does_not_hide_the_others() {
    let malformed = json!({ "metadata": { "name": "c-bbbbb" }, "spec": { "displayName": 7 } });
    let server = Server::new().on("GET", ALL, 200, &list_of(&[named("c-aaaaa", "one"), malformed]));
    let all = cluster::list(&server.client(), None).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].id, id("c-bbbbb"));
}

#[tokio::test]
async fn a_trigger_is_one_annotation_with_a_precondition() {
    let server = Server::new().on(
        "PATCH",
        &format!("{CLUSTERS}/c-gsrbc?fieldManager=kubectl-crt"),
        200,
        &fixture("cluster-secret"),
    );
    cluster::trigger_reconcile(
        &server.client(),
        &observed("", "c-gsrbc"),
        &[("example.com/triggered", "7")],
        &write(),
    )
    .await
    .unwrap();
    let request = server.only();
    assert_eq!(request.headers["content-type"], "application/merge-patch+json");
    assert_eq!(
        request.body,
        json!({ "metadata": {
            "annotations": { "example.com/triggered": "7" },
            "uid": "7-of-9",
            "resourceVersion": "42",
        } })
    );
}

#[tokio::test]
async fn a_concurrent_change_is_a_conflict() {
    let server = Server::new().on(
        "PATCH",
        &format!("{CLUSTERS}/c-gsrbc?fieldManager=kubectl-crt"),
        409,
        &status(409, "Conflict", "the object has been modified"),
    );
    let annotations = [("example.com/triggered", "7")];
    let error = cluster::trigger_reconcile(&server.client(), &observed("", "c-gsrbc"), &annotations, &write())
        .await
        .unwrap_err();
    assert!(error.is_conflict() && !error.is_already_exists());
    assert_eq!(error.to_string(), "could not change Cluster c-gsrbc");
}

#[tokio::test]
async fn an_empty_403_is_a_missing_permission() {
    // The response of Rancher to a user without permissions on the management cluster.
    let server = Server::new().on_text("GET", &format!("{CLUSTERS}/c-gsrbc"), 403, &[], "");
    let error = cluster::get(&server.client(), &id("c-gsrbc")).await.unwrap_err();
    assert!(error.is_forbidden());
    assert_eq!(error.to_string(), "could not read Cluster c-gsrbc");
    // No rule of RBAC would help.
    let hints = error.on("the management cluster").hints;
    assert!(hints.len() == 1 && hints[0].contains("cluster-member"), "{hints:?}");
}

#[tokio::test]
async fn a_name_that_may_not_be_read_as_an_id_can_be_a_display_name() {
    let forbidden = status(403, "Forbidden", "no");
    let server = Server::new()
        .on("GET", &format!("{CLUSTERS}/prod"), 403, &forbidden)
        .on("GET", ALL, 200, &list_of(&[named("c-aaaaa", "prod")]));
    assert_eq!(cluster::find(&server.client(), "prod").await.unwrap().id, id("c-aaaaa"));

    let server = Server::new()
        .on("GET", &format!("{CLUSTERS}/prod"), 403, &forbidden)
        .on("GET", ALL, 403, &forbidden);
    let error = cluster::find(&server.client(), "prod").await.unwrap_err();
    assert_eq!(error.to_string(), "could not list Clusters");

    // This can only be an id.
    let server = Server::new()
        .on("GET", &format!("{CLUSTERS}/c-gsrbc"), 403, &forbidden)
        .on("GET", ALL, 403, &forbidden);
    let error = cluster::find(&server.client(), "c-gsrbc").await.unwrap_err();
    assert_eq!(error.to_string(), "could not read Cluster c-gsrbc");
}

#[tokio::test]
async fn a_malformed_response_is_reported_by_position() {
    let server = Server::new().on_text("GET", &format!("{CLUSTERS}/c-gsrbc"), 200, &[], "<html>\nhello");
    let error = cluster::get(&server.client(), &id("c-gsrbc")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not read Cluster c-gsrbc: malformed response at line 1, column 1"
    );
}

#[tokio::test]
async fn an_error_of_ranchers_proxy_is_read() {
    let text = r#"{"Code":{"Code":"Forbidden","Status":403},"Message":"clusters.management.cattle.io \"c-gsrbc\" is forbidden: User \"u-abcde\" cannot get resource \"clusters\""}"#;
    let server = Server::new().on_text("GET", &format!("{CLUSTERS}/c-gsrbc"), 403, &[], text);
    let error = cluster::get(&server.client(), &id("c-gsrbc")).await.unwrap_err();
    assert!(error.is_forbidden());
    let worded = error.on("the downstream cluster").to_string();
    assert!(
        worded.contains("cannot read Cluster c-gsrbc on the downstream cluster"),
        "{worded}"
    );
    assert!(worded.contains(r#"User "u-abcde" cannot get"#), "{worded}");
}

#[tokio::test]
async fn an_error_page_is_not_quoted() {
    let server = Server::new().on_text(
        "GET",
        &format!("{CLUSTERS}/c-gsrbc"),
        502,
        &[],
        "<html>no upstream</html>",
    );
    let error = cluster::get(&server.client(), &id("c-gsrbc")).await.unwrap_err();
    let worded = error.on("the management cluster").to_string();
    assert!(!worded.contains("html"), "{worded}");
}
