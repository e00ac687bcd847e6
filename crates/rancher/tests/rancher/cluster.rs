use rancher::Error;
use rancher::cluster::{self, ClusterKind, ConditionStatus, Redeploy, Rendered};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Server, fixture, id, list_of, observed, status, write};

const CLUSTERS: &str = "/apis/management.cattle.io/v3/clusters";
const ALL: &str = "/apis/management.cattle.io/v3/clusters?limit=500";

fn called(id: &str, display_name: &str) -> Value {
    json!({ "metadata": { "name": id }, "spec": { "displayName": display_name } })
}

async fn read(object: Value) -> cluster::Cluster {
    let server = Server::new().on("GET", &format!("{CLUSTERS}/c-gsrbc"), 200, &object);
    cluster::get(&server.client(), &id("c-gsrbc")).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_imported_cluster_is_read_as_rancher_wrote_it() {
    let cluster = read(fixture("cluster-secret")).await;
    assert_eq!(cluster.id.as_str(), "c-gsrbc");
    assert_eq!(cluster.display_name, "dn1");
    assert_eq!(cluster.workspace.as_deref(), Some("fleet-default"));
    assert_eq!(cluster.kind, ClusterKind::Imported);
    assert_eq!(cluster.object.uid, "8cb987e0-cb50-45e2-bc7a-ec164c84f022");
    assert_eq!(cluster.object.resource_version, "1825");
    assert_eq!(cluster.applied_token.unwrap().to_string(), "739e2d9420");
    assert_eq!(cluster.connected(), Some(ConditionStatus::True));
    assert_eq!(cluster.agent_image.as_deref(), Some("rancher/rancher-agent:v2.15.0"));
    assert_eq!(cluster.nodes, 1);
    assert!(!cluster.pre_bootstrap(), "PreBootstrapped is Unknown, not False");
    assert!(!cluster.force_deploy && !cluster.deleting && !cluster.internal);
    assert_eq!(cluster.problems, []);
}

#[tokio::test]
async fn a_cluster_without_spec_and_status_was_never_connected() {
    let cluster = read(json!({ "metadata": { "name": "c-gsrbc" }, "spec": null })).await;
    assert_eq!(cluster.connected(), None);
    assert_eq!(cluster.kind, ClusterKind::Unknown);
    assert_eq!(cluster.redeploy_pending(&Rendered::default()), [Redeploy::NotDeployed]);
}

#[tokio::test]
async fn nonsense_in_a_cluster_is_said_and_not_repeated() {
    let mut object = fixture("cluster-secret");
    object["metadata"]["annotations"]["io.cattle.agent.registration-token-hash"] = json!("0123456789abcdef");
    object["status"]["conditions"] = json!([{ "type": "Ready", "status": "True", "lastUpdateTime": "yesterday" }]);
    let cluster = read(object).await;
    assert_eq!(cluster.applied_token, None);
    assert!(cluster.is("Ready"));
    let problems: Vec<_> = cluster.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "status.conditions[].lastUpdateTime is not an RFC 3339 time",
            "annotation io.cattle.agent.registration-token-hash is not a fingerprint",
        ]
    );
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
async fn each_sort_of_cluster_is_told_from_the_others(
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
async fn a_cluster_that_rancher_provisions_is_known_by_its_annotation_too() {
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
fn a_cluster_id_is_what_a_namespace_may_be_called(#[case] text: &str, #[case] fits: bool) {
    assert_eq!(text.parse::<rancher::ClusterId>().is_ok(), fits);
}

#[tokio::test]
async fn a_settled_cluster_has_no_redeploy_pending() {
    let cluster = read(fixture("cluster-secret")).await;
    let rendered = Rendered {
        agent_image: Some("rancher/rancher-agent:v2.15.0"),
        tokens: &["739e2d9420".parse().unwrap()],
    };
    assert_eq!(cluster.redeploy_pending(&rendered), []);
}

#[tokio::test]
async fn a_previous_token_explains_the_hash_that_is_not_the_current_ones() {
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
        ["Rancher has applied the token 739e2d9420 and is yet to apply 0000000000"]
    );
}

#[tokio::test]
async fn every_reason_for_a_redeploy_is_named() {
    let mut object = fixture("cluster-plain");
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
            "Rancher has not finished deploying the agent (AgentDeployed is not True)",
            "a forced deployment of the agent is pending (io.cattle.agent.force.deploy)",
            "the agent's image is to change from rancher/rancher-agent:v2.12.0 to rancher/rancher-agent:v2.12.1",
        ]
    );
}

#[tokio::test]
async fn an_image_from_a_private_registry_is_the_same_image() {
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
async fn the_image_in_the_clusters_own_spec_wins_over_the_setting() {
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
            &list_of(&[called("c-aaaaa", "edge-6"), called("c-bbbbb", "edge-7")]),
        );
    assert_eq!(
        cluster::find(&server.client(), "edge-7").await.unwrap().id,
        id("c-bbbbb")
    );
    server.seen();
}

#[tokio::test]
async fn a_display_name_that_is_no_object_name_is_never_put_into_a_path() {
    let server = Server::new().on("GET", ALL, 200, &list_of(&[called("c-aaaaa", "Büro Süd")]));
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
            &called("c-m-abc12345", "prod"),
        );
    assert_eq!(
        cluster::find(&server.client(), "fleet-default/prod").await.unwrap().id,
        id("c-m-abc12345")
    );
    server.seen();
}

#[tokio::test]
async fn a_server_without_provisioning_clusters_has_none_of_that_name() {
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
    assert!(matches!(error, Error::NoSuchCluster { .. }), "{error}");
    server.seen();
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
                called("c-aaaaa", "prod"),
                called("c-bbbbb", "test"),
                called("c-ccccc", "prod"),
            ]),
        );
    let error = cluster::find(&server.client(), "prod").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"2 clusters are called "prod": c-aaaaa (prod), c-ccccc (prod)"#
    );
}

#[tokio::test]
async fn a_name_that_is_nearly_right_is_put_right() {
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
            &list_of(&[called("c-aaaaa", "edge-berlin"), called("c-bbbbb", "central")]),
        );
    let error = cluster::find(&server.client(), "edge-berln").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"no cluster has the id, display name or provisioning name "edge-berln"; is "edge-berlin" meant?"#
    );
}

#[tokio::test]
async fn clusters_are_listed_page_by_page_and_by_selector() {
    let mut first = list_of(&[called("c-aaaaa", "one")]);
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
            &list_of(&[called("c-bbbbb", "two")]),
        );
    let all = cluster::list(&server.client(), Some("env=prod")).await.unwrap();
    assert_eq!(
        all.iter().map(|c| c.display_name.as_str()).collect::<Vec<_>>(),
        ["one", "two"]
    );
    server.seen();
}

#[tokio::test]
async fn a_page_that_came_too_late_is_followed_by_the_one_the_server_offers() {
    let mut first = list_of(&[called("c-aaaaa", "one")]);
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
            &list_of(&[called("c-bbbbb", "two")]),
        );
    assert_eq!(cluster::list(&server.client(), None).await.unwrap().len(), 2);
    server.seen();
}

#[tokio::test]
async fn one_broken_cluster_does_not_hide_the_others() {
    let broken = json!({ "metadata": { "name": "c-bbbbb" }, "spec": { "displayName": 7 } });
    let server = Server::new().on("GET", ALL, 200, &list_of(&[called("c-aaaaa", "one"), broken]));
    let all = cluster::list(&server.client(), None).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].id, id("c-bbbbb"));
    assert_eq!(
        all[1].problems[0].to_string(),
        "the object has a field of the wrong type"
    );
}

#[tokio::test]
async fn a_touch_is_one_annotation_with_the_precondition() {
    let server = Server::new().on(
        "PATCH",
        &format!("{CLUSTERS}/c-gsrbc?fieldManager=kubectl-crt"),
        200,
        &fixture("cluster-secret"),
    );
    cluster::touch(
        &server.client(),
        &observed("", "c-gsrbc"),
        ("example.com/touched", "7"),
        &write(),
    )
    .await
    .unwrap();
    let request = server.only();
    assert_eq!(request.headers["content-type"], "application/merge-patch+json");
    assert_eq!(
        request.body,
        json!({ "metadata": {
            "annotations": { "example.com/touched": "7" },
            "uid": "7-of-9",
            "resourceVersion": "42",
        } })
    );
}

#[tokio::test]
async fn a_forced_deployment_may_be_a_dry_run() {
    let server = Server::new().on(
        "PATCH",
        &format!("{CLUSTERS}/c-gsrbc?dryRun=All&fieldManager=kubectl-crt"),
        200,
        &fixture("cluster-secret"),
    );
    cluster::force_deploy(&server.client(), &observed("", "c-gsrbc"), &write().dry_run(true))
        .await
        .unwrap();
    assert_eq!(
        server.only().body["metadata"]["annotations"],
        json!({ "io.cattle.agent.force.deploy": "true" })
    );
}

#[tokio::test]
async fn a_cluster_that_has_changed_in_between_is_a_conflict() {
    let server = Server::new().on(
        "PATCH",
        &format!("{CLUSTERS}/c-gsrbc?fieldManager=kubectl-crt"),
        409,
        &status(409, "Conflict", "the object has been modified"),
    );
    let error = cluster::force_deploy(&server.client(), &observed("", "c-gsrbc"), &write())
        .await
        .unwrap_err();
    assert!(error.is_conflict() && !error.is_already_exists());
    assert_eq!(error.to_string(), "could not change Cluster c-gsrbc");
}

#[tokio::test]
async fn an_empty_403_is_a_missing_right() {
    // What Rancher answers on its own host to a user who may not see the management cluster.
    let server = Server::new().on_text("GET", &format!("{CLUSTERS}/c-gsrbc"), 403, &[], "");
    let error = cluster::get(&server.client(), &id("c-gsrbc")).await.unwrap_err();
    assert!(error.is_forbidden());
    assert_eq!(error.to_string(), "could not read Cluster c-gsrbc");
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_reported_by_position() {
    let server = Server::new().on_text("GET", &format!("{CLUSTERS}/c-gsrbc"), 200, &[], "<html>\nhello");
    let error = cluster::get(&server.client(), &id("c-gsrbc")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not read Cluster c-gsrbc: the server's answer makes no sense at line 1, column 1"
    );
}

#[tokio::test]
async fn the_refusal_of_ranchers_proxy_is_read_although_it_is_no_status() {
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
async fn the_body_of_an_answer_that_is_no_status_is_not_worded() {
    let server = Server::new().on_text(
        "GET",
        &format!("{CLUSTERS}/c-gsrbc"),
        502,
        &[],
        "<html>upstream is away</html>",
    );
    let error = cluster::get(&server.client(), &id("c-gsrbc")).await.unwrap_err();
    let worded = error.on("the management cluster").to_string();
    assert!(!worded.contains("html"), "{worded}");
}
