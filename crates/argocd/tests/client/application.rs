use argocd::application;
use serde_json::{Value, json};

use crate::support::{SERVER, Server, list_of, read, secret, status};

fn application(name: &str, destination: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "argocd"},
        "spec": {"project": "default", "destination": destination},
    })
}

#[tokio::test]
async fn applications_are_deployed_to_a_cluster_by_url_or_by_name() {
    let one = read(&[secret("one", &json!({}))]).await.remove(0);
    let list = list_of(&[
        application("by-url", &json!({"server": format!("{SERVER}/")})),
        application("by-name", &json!({"name": "one", "namespace": "web"})),
        application("elsewhere", &json!({"server": "https://kubernetes.default.svc"})),
        application("nowhere", &json!({"server": "", "name": ""})),
        json!({"metadata": {"name": "empty", "namespace": "argocd"}}),
    ]);
    let path = "/apis/argoproj.io/v1alpha1/applications?limit=500";
    let server = Server::new().on("GET", path, 200, &list);
    let found = application::list(&server.client(), None).await.unwrap();
    let pointing: Vec<&str> = found
        .iter()
        .filter(|application| application.points_at(&one))
        .map(|application| application.name.as_str())
        .collect();
    assert_eq!(pointing, ["by-url", "by-name"]);
}

#[tokio::test]
async fn an_unserved_kind_is_empty_and_a_missing_permission_is_an_error() {
    let path = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications?limit=500";
    let server = Server::new().on_text("GET", path, 404, "404 page not found\n").on(
        "GET",
        path,
        403,
        &status(403, "Forbidden", "applications is forbidden"),
    );
    let client = server.client();
    assert_eq!(application::list(&client, Some("argocd")).await.unwrap(), []);
    assert!(
        application::list(&client, Some("argocd"))
            .await
            .unwrap_err()
            .is_forbidden()
    );
}
