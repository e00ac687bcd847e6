//! The cost of listing many tokens, compared with kubectl for the same objects on the same server.
//!
//! The objects are copies of those that the fake Rancher has created for one registered cluster, written directly to
//! the API server. The fake Rancher is stopped before, because it would rotate them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use test_cluster::{ControlPlane, Registration, TestEnvironment, TokenStorage};

use crate::cost::{MeasuredCommand, pairs};
use crate::figures::{COMPARISON, comparison, table};

/// Tokens per namespace, about as many as clusters have at most.
const TO_A_NAMESPACE: u32 = 10;
/// Writes in parallel.
const AT_ONCE: usize = 64;

/// Lists `tokens` registration tokens with this token storage.
pub(crate) async fn list(
    environment: &TestEnvironment,
    storage: TokenStorage,
    plugin: &Path,
    kubectl: &Path,
    tokens: u32,
    count: u32,
) -> Result<()> {
    let management = populated(environment, storage, tokens).await?;
    let cache = environment.dir().join("list-cache");
    let command = |name: &str, program: &Path, args: &[&str]| {
        MeasuredCommand::new(name, program, args)
            .env("KUBECONFIG", management.kubeconfig())
            .env("KUBECACHEDIR", &cache)
    };
    let ours = command("kubectl-crt list", plugin, &["list"]);
    let kind = "clusterregistrationtokens.management.cattle.io";
    let theirs = [
        command(&format!("kubectl get {kind} -A"), kubectl, &["get", kind, "-A"]),
        command("kubectl get secrets -A", kubectl, &["get", "secrets", "-A"]),
    ];
    let rows = ours.output()?.lines().count() as u32 - 1;
    ensure!(rows >= tokens, "{rows} rows of {tokens} tokens");
    let mut figures = table(&COMPARISON);
    // With `status` storage there are no Secrets to list.
    for theirs in theirs.iter().take(if storage == TokenStorage::Secret { 2 } else { 1 }) {
        theirs.output()?;
        let (a, b) = pairs(&ours, theirs, count)?;
        comparison(&mut figures, (&theirs.name, b), (&ours.name, a));
    }
    anstream::println!(
        "\n{rows} tokens in {} namespaces, token storage {}:\n\n{figures}",
        rows / TO_A_NAMESPACE,
        storage.word()
    );
    management.stop().await;
    Ok(())
}

/// A management cluster with this number of tokens and no controllers.
async fn populated(environment: &TestEnvironment, storage: TokenStorage, tokens: u32) -> Result<ControlPlane> {
    let name = format!("list-{}", storage.word());
    let (management, rancher) = environment.separate_rancher(&name, storage, json!({})).await?;
    let pattern = rancher.register_as(&Registration::imported("pattern").quick()).await?;
    rancher.process().end().await;

    let client = management.client().await?;
    let copies = Copies::of(&client, &pattern.id, storage).await?;
    anstream::println!(
        "Writing {tokens} registration tokens, token storage {} …",
        storage.word()
    );
    let clusters = tokens / TO_A_NAMESPACE;
    let made = (0..clusters).map(|number| copies.cluster(&client, number));
    futures::stream::iter(made)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    quiet(&client, clusters).await?;
    Ok(management)
}

/// Waits until the controllers have created their objects in every namespace.
async fn quiet(client: &Client, namespaces: u32) -> Result<()> {
    loop {
        let accounts = request(client, Method::GET, "/api/v1/serviceaccounts", &Value::Null).await?;
        let made = accounts["items"].as_array().map_or(0, Vec::len);
        if made >= namespaces as usize {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// The objects of a registered cluster on the management cluster.
struct Copies {
    id: String,
    cluster: Value,
    token: Value,
    secret: Option<Value>,
}

impl Copies {
    async fn of(client: &Client, id: &str, storage: TokenStorage) -> Result<Self> {
        let get = async |path: String| request(client, Method::GET, &path, &Value::Null).await;
        let secret = match storage {
            TokenStorage::Status => None,
            TokenStorage::Secret => Some(get(format!("/api/v1/namespaces/{id}/secrets/crt-token-system")).await?),
        };
        Ok(Self {
            id: id.to_owned(),
            cluster: get(format!("{CLUSTERS}/{id}")).await?,
            token: get(format!("{}/system", tokens(id))).await?,
            secret,
        })
    }

    /// A copy of it with ten tokens.
    async fn cluster(&self, client: &Client, number: u32) -> Result<()> {
        let id = format!("c-{number:05}");
        request(
            client,
            Method::POST,
            "/api/v1/namespaces",
            &json!({"metadata": {"name": id}}),
        )
        .await?;
        let mut cluster = fresh(&self.cluster, &id);
        cluster["spec"]["displayName"] = json!(format!("cluster-{number:05}"));
        request(client, Method::POST, CLUSTERS, &cluster).await?;
        for place in 0..TO_A_NAMESPACE {
            self.token(client, &id, number * TO_A_NAMESPACE + place, place).await?;
        }
        Ok(())
    }

    async fn token(&self, client: &Client, id: &str, number: u32, place: u32) -> Result<()> {
        let name = match place {
            0 => "system".to_owned(),
            1 => "default-token".to_owned(),
            place => format!("crt-{place:05}"),
        };
        // A distinct value with the length of Rancher's values.
        let value = format!("{number:0>54}");
        let mut token = fresh(&self.token, &name);
        let old = token["status"]["token"].as_str().unwrap_or_default().to_owned();
        let mut text = token.to_string().replace(&self.id, id);
        if !old.is_empty() {
            text = text.replace(&old, &value);
        }
        token = serde_json::from_str(&text)?;
        let secret_name = format!("crt-token-{name}");
        if self.secret.is_some() {
            token["status"]["tokenSecretName"] = json!(secret_name);
        }
        let made = request(client, Method::POST, &tokens(id), &token).await?;
        if let Some(secret) = &self.secret {
            let mut secret = fresh(secret, &secret_name);
            secret["metadata"]["namespace"] = json!(id);
            secret["metadata"]["ownerReferences"][0]["name"] = json!(name);
            secret["metadata"]["ownerReferences"][0]["uid"] = made["metadata"]["uid"].clone();
            secret["data"]["token"] = json!(STANDARD.encode(&value));
            request(
                client,
                Method::POST,
                &format!("/api/v1/namespaces/{id}/secrets"),
                &secret,
            )
            .await?;
        }
        Ok(())
    }
}

const CLUSTERS: &str = "/apis/management.cattle.io/v3/clusters";

fn tokens(namespace: &str) -> String {
    format!("/apis/management.cattle.io/v3/namespaces/{namespace}/clusterregistrationtokens")
}

/// The object under another name, without the fields that the API server sets.
fn fresh(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "managedFields",
        ] {
            metadata.remove(field);
        }
    }
    object["metadata"]["name"] = json!(name);
    object
}

async fn request(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() {
        Vec::new()
    } else {
        serde_json::to_vec(body)?
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body)?;
    client.request(request).await.with_context(|| format!("ask for {path}"))
}
