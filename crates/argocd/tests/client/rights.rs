use argocd::rights::{SyncAccess, WatchScope, missing, sync_access};
use client::clock::ServerClock;
use client::connection::Server;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

/// A cluster that serves four kinds. `allows` decides by the attributes of an access review.
fn cluster(allows: fn(&Value) -> bool) -> Server {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        while let Some((request, responder)) = handle.next_request().await {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect_bytes().await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let response = match path.as_str() {
                "/apis" => json!({"groups": [{
                    "name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
                    "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
                }]}),
                "/api" => json!({"versions": ["v1"], "serverAddressByClientCIDRs": []}),
                "/api/v1" => json!({"groupVersion": "v1", "resources": [
                    kind("pods", "Pod", true, &["get", "list", "watch", "create"]),
                    kind("nodes", "Node", false, &["get", "list", "watch", "create"]),
                    kind("events", "Event", true, &["get", "list", "watch"]),
                    kind("bindings", "Binding", true, &["create"]),
                ]}),
                "/apis/apps/v1" => json!({"groupVersion": "apps/v1", "resources": [
                    kind("deployments", "Deployment", true, &["get", "list", "watch"]),
                ]}),
                _ => json!({"spec": {}, "status": {"allowed": allows(&body["spec"]["resourceAttributes"])}}),
            };
            responder.send_response(Response::new(response.to_string().into_bytes().into()));
        }
    });
    Server {
        client: kube::Client::new(service, "default"),
        clock: ServerClock::default(),
        url: "https://x".parse().unwrap(),
        namespace: "default".into(),
    }
}

fn kind(plural: &str, kind: &str, namespaced: bool, verbs: &[&str]) -> Value {
    json!({"name": plural, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs})
}

async fn missing_in(allows: fn(&Value) -> bool, namespaces: &[&str], cluster_resources: bool) -> Vec<String> {
    let namespaces: Vec<String> = namespaces.iter().map(|name| (*name).to_owned()).collect();
    let scope = WatchScope {
        namespaces: &namespaces,
        cluster_resources,
    };
    let missing = missing(&cluster(allows), scope).await.unwrap();
    missing.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_role_that_allows_everything_is_sufficient() {
    assert!(missing_in(|_| true, &[], false).await.is_empty());
}

#[tokio::test]
async fn a_role_with_every_kind_is_sufficient() {
    assert!(
        missing_in(|attributes| attributes["resource"] != "*", &[], false)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn missing_permissions_are_listed_by_kind_without_excluded_kinds() {
    let missing = missing_in(|attributes| attributes["resource"] == "pods", &[], false).await;
    assert_eq!(
        missing,
        [
            "list nodes",
            "watch nodes",
            "list deployments.apps",
            "watch deployments.apps"
        ]
    );
}

#[tokio::test]
async fn with_namespaces_only_their_permissions_count() {
    let in_web = |attributes: &Value| attributes["resource"] != "*" && attributes["namespace"] == "web";
    assert!(missing_in(in_web, &["web"], false).await.is_empty());
    assert_eq!(missing_in(in_web, &["web"], true).await, ["list nodes", "watch nodes"]);
}

async fn syncs(allows: fn(&Value) -> bool) -> SyncAccess {
    let everywhere = WatchScope {
        namespaces: &[],
        cluster_resources: false,
    };
    sync_access(&cluster(allows), everywhere).await.unwrap()
}

#[tokio::test]
async fn a_role_that_can_only_watch_can_sync_nothing() {
    assert_eq!(
        syncs(|attributes| attributes["verb"] != "create" && attributes["verb"] != "patch").await,
        SyncAccess::Nothing
    );
    assert_eq!(
        syncs(|attributes| attributes["resource"] == "pods").await,
        SyncAccess::Some
    );
    // What every user may create proves nothing.
    assert_eq!(
        syncs(|attributes| attributes["resource"] == "bindings").await,
        SyncAccess::Nothing
    );
    assert_eq!(syncs(|_| true).await, SyncAccess::Everything);
}
