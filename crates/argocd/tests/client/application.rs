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

/// Argo CD reads other namespaces only if its settings say so. If these must not be read, it may.
#[tokio::test]
async fn applications_in_other_namespaces_are_unknown_unless_argocd_reads_none() {
    let one = read(&[secret("one", &json!({}))]).await.remove(0);
    let forbidden = |what: &str| status(403, "Forbidden", &format!("{what} is forbidden"));
    let settings = |data: Value| json!({"metadata": {"name": "argocd-cmd-params-cm"}, "data": data});
    let elsewhere = application("elsewhere", &json!({"server": "https://kubernetes.default.svc"}));
    let there = application("there", &json!({"server": SERVER}));
    for (applications, code, settings, expected) in [
        (vec![&elsewhere], 200, settings(json!({})), Some(false)),
        (
            vec![&elsewhere],
            200,
            settings(json!({"application.namespaces": ""})),
            Some(false),
        ),
        (vec![&elsewhere], 404, status(404, "NotFound", "not found"), Some(false)),
        (
            vec![&elsewhere],
            200,
            settings(json!({"application.namespaces": "team-*"})),
            None,
        ),
        (vec![&elsewhere], 403, forbidden("configmaps"), None),
        (vec![&there], 403, forbidden("configmaps"), Some(true)),
    ] {
        let applications: Vec<Value> = applications.into_iter().cloned().collect();
        let all = "/apis/argoproj.io/v1alpha1/applications?limit=500";
        let own = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications?limit=500";
        let config_map = "/api/v1/namespaces/argocd/configmaps/argocd-cmd-params-cm";
        let server = Server::new()
            .on("GET", all, 403, &forbidden("applications"))
            .on("GET", own, 200, &list_of(&applications))
            .on("GET", config_map, code, &settings);
        let visible = application::visible(&server.client(), "argocd").await.unwrap();
        assert_eq!(visible.any_points_at(&one), expected, "{settings}");
    }
}
