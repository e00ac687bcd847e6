use argocd::ServerUrl;
use argocd::connection::{Connection, parse, read};
use serde_json::json;

use crate::support::{SERVER, Server, list_of};

/// As Argo CD 3.2.11 writes them.
const METRICS: &str = r#"# HELP argocd_cluster_connection_status The k8s cluster current connection status.
# TYPE argocd_cluster_connection_status gauge
argocd_cluster_connection_status{k8s_version="1.36.3",server="https://rancher.example.com/k8s/clusters/c-m-abc12345"} 1
argocd_cluster_connection_status{k8s_version="",server="https://odd.example.com/\"quoted\""} 0
argocd_cluster_api_resources{server="https://rancher.example.com/k8s/clusters/c-m-abc12345"} 56
argocd_cluster_cache_age_seconds{server="https://rancher.example.com/k8s/clusters/c-m-abc12345"} 7
argocd_cluster_cache_age_seconds{server="https://odd.example.com/\"quoted\""} -1
argocd_cluster_events_total{group="",kind="Pod",server="https://x"} 3
argocd_cluster_connection_status{broken
argocd_app_info{dest_server="https://y"} 1
"#;

#[test]
fn metrics_contain_the_connection_state_of_each_cluster() {
    let all = parse(METRICS);
    assert_eq!(all.len(), 2);
    let good = Connection {
        connected: Some(true),
        kinds: Some(56),
        age: Some(7),
    };
    assert_eq!(all[&ServerUrl::new(SERVER)], good);
    let odd = &all[&ServerUrl::new(r#"https://odd.example.com/"quoted""#)];
    assert_eq!((odd.connected, odd.kinds, odd.age), (Some(false), None, None));
}

#[tokio::test]
async fn metrics_are_read_through_the_service() {
    let services =
        "/api/v1/namespaces/argocd/services?labelSelector=app.kubernetes.io%2Fname%3Dargocd-metrics&limit=500";
    let service =
        json!({"metadata": {"name": "argocd-metrics"}, "spec": {"ports": [{"name": "metrics", "port": 8082}]}});
    let server = Server::new()
        .on("GET", services, 200, &list_of(&[service]))
        .on_text(
            "GET",
            "/api/v1/namespaces/argocd/services/argocd-metrics:8082/proxy/metrics",
            200,
            METRICS,
        )
        .on("GET", services, 200, &list_of(&[]));
    let client = server.client();
    assert_eq!(read(&client, "argocd").await.unwrap().unwrap().len(), 2);
    assert_eq!(read(&client, "argocd").await.unwrap(), None);
    server.requests();
}
