//! API tokens of the fake Rancher, and rotations that wait for the grace period.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use test_cluster::User;

use crate::fixture::{Fixture, token};

/// Issues a token for the user who runs the commands. Returns its name and its value.
pub(crate) async fn issue_token(
    fixture: &Fixture,
    description: &str,
    cluster: Option<&str>,
) -> Result<(String, String)> {
    let client = fixture.base.rancher.client("", Some(&User::admin()))?;
    let body = json!({"type": "token", "description": description, "ttl": 3_600_000, "clusterId": cluster});
    let request = http::Request::post("/v3/tokens")
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())?;
    let made: Value = serde_json::from_str(&client.request_text(request).await?)?;
    let text = |key: &str| made[key].as_str().map(str::to_owned).context("no token");
    Ok((text("name")?, text("token")?))
}

pub(crate) async fn is_valid(fixture: &Fixture, name: &str) -> Result<bool> {
    let tokens = fixture.base.rancher.tokens().await?;
    Ok(tokens
        .iter()
        .any(|token| token["name"] == name && token["valid"] == true))
}

pub(crate) async fn name_of_secret(fixture: &Fixture) -> Result<String> {
    fixture.cluster_secret().await?.metadata.name.context("no name")
}

/// Interrupts a rotation during its grace period. Returns the old and the new token.
pub(crate) async fn interrupted_in_grace(fixture: &Fixture) -> Result<(String, String)> {
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let old = token(&fixture.secret().await?)?;
    let rotate = ["rotate", fixture.id(), "--grace", "10m", "--yes"];
    let run = fixture.run(&rotate).start().await?;
    fixture.reaches("prove").await?;
    let new = token(&fixture.cluster_secret().await?)?;
    run.signal(Signal::INT)?;
    let interrupted = run.finish().await?.expect(130)?;
    ensure!(
        interrupted.stderr.contains("kubectl argocd-rancher rollback"),
        "{interrupted}"
    );
    Ok((old, new))
}
