//! `add` writes the Secret that Argo CD itself would write, as `argocd admin cluster generate-spec` prints it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use http::Method;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use test_cluster::{Fault, Identity, Kubeconfig, On, TestEnvironment};

use crate::fixture::{Fixture, secret_of, text};

/// The fields that both must agree on: name, labels, Argo CD's own annotations, and the text of every key.
fn essence(secret: &Secret) -> Result<Value> {
    let data: BTreeMap<&String, String> = secret
        .data
        .iter()
        .flatten()
        .map(|(key, _)| Ok((key, text(secret, key)?)))
        .collect::<Result<_>>()?;
    let mut annotations = secret.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !key.starts_with("kubectl-rotation.github.io/"));
    Ok(json!({
        "name": secret.metadata.name, "labels": secret.metadata.labels, "annotations": annotations, "data": data,
    }))
}

fn essence_of(spec: &Value) -> Value {
    let metadata = &spec["metadata"];
    json!({
        "name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"],
        "data": spec["stringData"],
    })
}

/// The Secret that generate-spec prints for the server and the token of a Secret.
fn wanted(fixture: &Fixture, secret: &Secret, ca_pem: &str, flags: &[&str]) -> Result<Value> {
    let config: Value = serde_json::from_str(&text(secret, "config")?)?;
    let token = config["bearerToken"].as_str().context("no token")?;
    let kubeconfig = Kubeconfig::new().context("x", &text(secret, "server")?, ca_pem, &Identity::Anonymous);
    let name = text(secret, "name")?;
    let flags = [&["--name", &name], flags].concat();
    tokio::task::block_in_place(|| fixture.argo.generate_spec(&kubeconfig, "x", token, &flags))
}

#[tokio::test(flavor = "multi_thread")]
async fn add_writes_the_secret_that_generate_spec_prints() -> Result<()> {
    let fixture = Fixture::begin("bern").await?;
    fixture
        .run(&[
            "add",
            fixture.id(),
            "-l",
            "env=test",
            "--only-namespace",
            "a",
            "--only-namespace",
            "b",
            "--cluster-resources",
        ])
        .run()
        .await?
        .expect(0)?;
    let secret = fixture.secret().await?;
    let flags = [
        "--label",
        "env=test",
        "--namespace",
        "a",
        "--namespace",
        "b",
        "--cluster-resources",
    ];
    let spec = wanted(&fixture, &secret, fixture.base.rancher.ca_pem(), &flags)?;
    assert_eq!(essence(&secret)?, essence_of(&spec), "{spec:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_omits_the_ca_behind_a_publicly_trusted_certificate() -> Result<()> {
    let fixture = Fixture::begin("lugano").await?;
    let (proxy, shell) = fixture.base.behind_proxy().await?;
    // A Rancher without a private CA, and a system that trusts its certificate.
    let none = Fault::Say {
        status: 200,
        body: String::new(),
    };
    let asked = proxy.plan(On::request().method(Method::GET).path("/cacerts").always(), none);
    let roots = shell.home().join("roots.pem");
    std::fs::write(&roots, proxy.ca_pem())?;
    let add = fixture
        .run_at(&shell, &["add", fixture.id()])
        .env("SSL_CERT_FILE", &roots);
    add.run().await?.expect(0)?;
    assert!(asked.struck() > 0);
    let server = format!("{}/k8s/clusters/{}", proxy.url(), fixture.id());
    let secret = secret_of(&fixture.secrets, &server).await?;
    let spec = wanted(&fixture, &secret, "", &[])?;
    assert_eq!(essence(&secret)?, essence_of(&spec), "{spec:#}");
    assert!(!text(&secret, "config")?.contains("caData"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_names_match_those_of_argocd() -> Result<()> {
    let argo = TestEnvironment::shared().await?.argocd().await?;
    let servers = [
        "http://foo",
        "http://[FE80::1FF:FE23:4567:890A]:8000",
        "https://rancher.example.com/k8s/clusters/c-m-abc12345",
        "https://rancher.example.com/k8s/clusters/c-m-abc12345/",
        "https://rancher.example.com:8443/k8s/clusters/local",
        "https://Rancher.Example.com/k8s/clusters/c-m-abc12345",
        "https://rancher.example.com:443/k8s/clusters/c-m-abc12345",
        "https://10.0.0.1:6443",
    ];
    for server in servers {
        let kubeconfig = Kubeconfig::new().context("x", server, "", &Identity::Anonymous);
        let spec = tokio::task::block_in_place(|| argo.generate_spec(&kubeconfig, "x", "token-x:y", &[]))?;
        assert_eq!(spec["metadata"]["name"], argocd::secret_name(server)?, "{server}");
    }
    Ok(())
}
