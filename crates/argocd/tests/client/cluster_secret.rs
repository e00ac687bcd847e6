use argocd::config::{InvalidConfig, Method};
use argocd::{ClusterConfig, NewClusterSecret, ServerUrl, cluster_secret, secret_name};
use client::request::Write;
use client::secret::Secret;
use serde_json::json;

use crate::support::{LIST, SERVER, Server, TOKEN, encoded, list_of, read, secret, status};

fn write() -> Write {
    Write::by("kubectl-argocd-rancher")
}

#[tokio::test]
async fn a_cluster_secret_is_read_as_argo_cd_reads_it() {
    let data = json!({
        "server": format!("{SERVER}/"), "namespaces": " a, ,b", "clusterResources": "true", "project": "blue", "shard": "1",
    });
    let clusters = read(&[secret("one", &data)]).await;
    let one = &clusters[0];
    assert_eq!((one.name.as_str(), one.server.as_str()), ("one", SERVER));
    assert_eq!(one.namespaces, ["a", "b"]);
    assert!(one.cluster_resources && !one.deleting && !one.immutable);
    assert_eq!(one.project.as_deref(), Some("blue"));
    assert_eq!(one.labels["team"], "blue");
    let config = one.config.as_ref().unwrap();
    assert_eq!(
        (config.method(), config.bearer_token()),
        (Method::Bearer, Some(Secret::new(TOKEN)))
    );
    assert!(one.problems.is_empty(), "{:?}", one.problems);
    assert!(!format!("{one:?}").contains("dk6nhzh5"), "{one:?}");
}

#[tokio::test]
async fn an_invalid_secret_does_not_hide_the_others() {
    let mut no_base64 = secret("three", &json!({}));
    no_base64["data"]["server"] = json!("%");
    let clusters = read(&[
        secret("one", &json!({"config": "nonsense", "shard": "first", "name": ""})),
        json!({"metadata": {"name": "two", "labels": null}, "data": null}),
        no_base64,
        secret("four", &json!({})),
    ])
    .await;
    assert_eq!(clusters[0].config.as_ref().unwrap_err(), &InvalidConfig::NotJson);
    // Argo CD shows the URL of a cluster without a name.
    assert_eq!(clusters[0].name, SERVER);
    let problems: Vec<Vec<String>> = clusters
        .iter()
        .map(|cluster| cluster.problems.iter().map(ToString::to_string).collect())
        .collect();
    assert_eq!(problems[0], ["data.shard is not a number"]);
    assert_eq!(problems[1], ["data.server is empty"]);
    assert_eq!(problems[2], ["data.server is not text", "data.server is empty"]);
    assert!(problems[3].is_empty());
}

#[tokio::test]
async fn a_new_secret_is_what_argo_cd_would_write() {
    let name = secret_name(SERVER).unwrap();
    let new = NewClusterSecret {
        secret: name.clone(),
        name: "one".into(),
        server: ServerUrl::new(SERVER),
        config: ClusterConfig::bearing(&Secret::new(TOKEN), None),
        labels: [("team".into(), "blue".into())].into(),
        namespaces: vec!["a".into(), "b".into()],
        cluster_resources: true,
        project: None,
    };
    let response = secret(&name, &json!({}));
    let target = "/api/v1/namespaces/argocd/secrets?fieldManager=kubectl-argocd-rancher";
    let server = Server::new().on("POST", target, 201, &response);
    let marked = write().marked("kubectl-rotation.github.io/token", "token-x7k2p");
    let made = cluster_secret::create(&server.client(), "argocd", &new, &marked)
        .await
        .unwrap();
    assert_eq!(made.object.name, "cluster-rancher.example.com-4044853469");
    assert_eq!(
        server.requests()[0].body,
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {
                "name": "cluster-rancher.example.com-4044853469", "namespace": "argocd",
                "labels": {"argocd.argoproj.io/secret-type": "cluster", "team": "blue"},
                "annotations": {"managed-by": "argocd.argoproj.io", "kubectl-rotation.github.io/token": "token-x7k2p"},
            },
            "data": {
                "config": encoded(&format!(r#"{{"bearerToken":"{TOKEN}","tlsClientConfig":{{"insecure":false}}}}"#)),
                "name": encoded("one"), "server": encoded(SERVER),
                "namespaces": encoded("a,b"), "clusterResources": encoded("true"),
            },
        })
    );
}

#[tokio::test]
async fn a_new_token_is_one_conditional_patch_of_the_config() {
    let one = read(&[secret("one", &json!({}))]).await.remove(0);
    let config = one.config.clone().unwrap().with_bearer(&Secret::new("token-new:abc"));
    let target = "/api/v1/namespaces/argocd/secrets/one?fieldManager=kubectl-argocd-rancher";
    let conflict = status(409, "Conflict", "the object has been modified");
    let server = Server::new()
        .on("PATCH", target, 200, &secret("one", &json!({})))
        .on("PATCH", target, 409, &conflict);
    let client = server.client();
    let marked = write().marked("kubectl-rotation.github.io/token", "token-new");
    cluster_secret::patch_config(&client, &one.object, &config, &marked)
        .await
        .unwrap();
    let error = cluster_secret::patch_config(&client, &one.object, &config, &write())
        .await
        .unwrap_err();
    assert!(error.is_conflict());
    assert_eq!(
        server.requests()[0].body,
        json!({
            "metadata": {
                "uid": "uid-of-one", "resourceVersion": "42",
                "annotations": {"kubectl-rotation.github.io/token": "token-new"},
            },
            "data": {"config": encoded(r#"{"bearerToken":"token-new:abc","tlsClientConfig":{"insecure":false}}"#)},
        })
    );
}

#[tokio::test]
async fn a_dry_run_is_sent_as_such_and_a_delete_has_preconditions() {
    let one = read(&[secret("one", &json!({}))]).await.remove(0);
    let path = "/api/v1/namespaces/argocd/secrets/one";
    let server = Server::new()
        .on(
            "PATCH",
            &format!("{path}?dryRun=All&fieldManager=kubectl-argocd-rancher"),
            200,
            &secret("one", &json!({})),
        )
        .on(
            "DELETE",
            path,
            404,
            &status(404, "NotFound", "secrets \"one\" not found"),
        );
    let client = server.client();
    let config = one.config.clone().unwrap();
    cluster_secret::patch_config(&client, &one.object, &config, &write().dry_run(true))
        .await
        .unwrap();
    cluster_secret::delete(&client, &one.object, &write()).await.unwrap();
    assert_eq!(
        server.requests()[1].body["preconditions"],
        json!({"uid": "uid-of-one", "resourceVersion": "42"})
    );
}

#[tokio::test]
async fn a_detached_secret_loses_only_the_label_and_is_found_again() {
    let one = read(&[secret("one", &json!({}))]).await.remove(0);
    let removing = "/api/v1/namespaces/argocd/secrets?labelSelector=kubectl-rotation.github.io%2Fremoving&limit=500";
    let server = Server::new()
        .on(
            "PATCH",
            "/api/v1/namespaces/argocd/secrets/one?fieldManager=kubectl-argocd-rancher",
            200,
            &secret("one", &json!({})),
        )
        .on("GET", removing, 200, &list_of(&[secret("one", &json!({}))]));
    let client = server.client();
    cluster_secret::detach(&client, &one.object, &write()).await.unwrap();
    let detached = cluster_secret::list_detached(&client, "argocd").await.unwrap();
    assert_eq!(detached[0].object.name, "one");
    let sent = &server.requests()[0].body;
    assert_eq!(
        sent["metadata"]["labels"],
        json!({"argocd.argoproj.io/secret-type": null, "kubectl-rotation.github.io/removing": "true"})
    );
    assert_eq!(sent["metadata"]["resourceVersion"], "42");
    assert!(sent["data"].is_null(), "{sent}");
}

#[tokio::test]
async fn a_secret_without_the_label_is_not_found() {
    let mut other = secret("repo", &json!({}));
    other["metadata"]["labels"]["argocd.argoproj.io/secret-type"] = json!("repository");
    let path = |name: &str| format!("/api/v1/namespaces/argocd/secrets/{name}");
    let server = Server::new()
        .on("GET", &path("repo"), 200, &other)
        .on(
            "GET",
            &path("none"),
            404,
            &status(404, "NotFound", "secrets \"none\" not found"),
        )
        .on("GET", &path("one"), 200, &secret("one", &json!({})));
    let client = server.client();
    assert!(cluster_secret::get(&client, "argocd", "repo").await.unwrap().is_none());
    assert!(cluster_secret::get(&client, "argocd", "none").await.unwrap().is_none());
    assert!(cluster_secret::get(&client, "argocd", "one").await.unwrap().is_some());
}

#[tokio::test]
async fn a_list_is_read_in_pages_and_restarted_when_it_expires() {
    let page = |item: &str, next: &str| json!({"metadata": {"continue": next}, "items": [secret(item, &json!({}))]});
    let next = "/api/v1/namespaces/argocd/secrets?labelSelector=argocd.argoproj.io%2Fsecret-type%3Dcluster&limit=500&continue=abc";
    let server = Server::new()
        .on("GET", LIST, 200, &page("old", "abc"))
        .on("GET", next, 410, &status(410, "Expired", "too old"))
        .on("GET", LIST, 200, &page("one", "abc"))
        .on("GET", next, 200, &page("two", ""));
    let clusters = cluster_secret::list(&server.client(), "argocd").await.unwrap();
    let names: Vec<&str> = clusters.iter().map(|cluster| cluster.object.name.as_str()).collect();
    let requests: Vec<String> = server.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(names, ["one", "two"], "{requests:?}");
}

#[tokio::test]
async fn a_truncated_response_is_not_in_the_error() {
    let text = list_of(&[secret("one", &json!({}))]).to_string();
    let server = Server::new().on_text("GET", LIST, 200, &text[..text.len() - 40]);
    let error = cluster_secret::list(&server.client(), "argocd").await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(
        !shown.contains(&encoded(TOKEN)[..20]) && shown.contains("malformed response"),
        "{shown}"
    );
}
