//! The cost of creating and listing bootstrap tokens, compared with kubeadm on the same server.
//!
//! `create` does more than kubeadm: it asks for the server's time, and whether the token's groups may join.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use test_cluster::{ControlPlane, Shape, TestEnvironment};

use crate::cost::{MeasuredCommand, pairs};
use crate::figures::{COMPARISON, comparison, table};

/// Writes in parallel.
const AT_ONCE: usize = 64;

/// `create`, `list` of the resulting tokens, and `list` of `tokens` more.
pub(crate) async fn run(
    environment: &TestEnvironment,
    plugin: &Path,
    kubeadm: &Path,
    tokens: u32,
    count: u32,
) -> Result<()> {
    let name = "bootstrap-tokens";
    let plane = ControlPlane::start(
        environment.programs(),
        &environment.dir().join(name),
        name,
        Shape::WithoutNodes,
    )
    .await?;
    let kubeconfig = plane.kubeconfig().to_str().context("a path that is not UTF-8")?;
    let pair = |verb: &str| {
        let ours = MeasuredCommand::new(format!("kubectl-bootstrap_token {verb}"), plugin, &[verb]);
        let args = ["token", verb, "--kubeconfig", kubeconfig];
        let theirs = MeasuredCommand::new(format!("kubeadm token {verb}"), kubeadm, &args);
        (ours.env("KUBECONFIG", kubeconfig), theirs)
    };
    let mut figures = table(&COMPARISON);
    for verb in ["create", "list"] {
        measure(&mut figures, &pair(verb), count)?;
    }
    anstream::println!("\nA few bootstrap tokens:\n\n{figures}");

    anstream::println!("Writing {tokens} bootstrap tokens …");
    populate(&plane, tokens).await?;
    let list = pair("list");
    for command in [&list.0, &list.1] {
        let rows = command.output()?.lines().count();
        ensure!(
            rows > tokens as usize,
            "{}: {rows} lines of {tokens} tokens",
            command.name
        );
    }
    let mut figures = table(&COMPARISON);
    measure(&mut figures, &list, count)?;
    anstream::println!("\n{tokens} bootstrap tokens more:\n\n{figures}");
    plane.stop().await;
    Ok(())
}

fn measure(
    figures: &mut comfy_table::Table,
    (ours, theirs): &(MeasuredCommand, MeasuredCommand),
    count: u32,
) -> Result<()> {
    ours.output()?;
    theirs.output()?;
    let (a, b) = pairs(ours, theirs, count)?;
    comparison(figures, (&theirs.name, b), (&ours.name, a));
    Ok(())
}

/// Tokens as `kubeadm token create` writes them, which expire in a day or so.
async fn populate(plane: &ControlPlane, tokens: u32) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(plane.client().await?, "kube-system");
    let now = k8s_openapi::jiff::Timestamp::now();
    let ends = now + k8s_openapi::jiff::SignedDuration::from_hours(24);
    let made = (0..tokens).map(async |number| {
        let id = format!("{number:06}");
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": id, "token-secret": format!("{number:016}"), "expiration": format!("{ends:.0}"),
                "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
                "description": format!("rack {number}"),
            },
        }))?;
        secrets.create(&PostParams::default(), &secret).await?;
        Ok(())
    });
    futures::stream::iter(made)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
