//! `kubectl crt rotate --force=agent` where the agent did not work before, and the rollback to that state.

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, RancherFixture, until};
use rstest::rstest;
use serde_json::json;
use test_cluster::{Fault, Moment, On, TokenStorage};

use crate::state::State;

/// The forced checks: the agent is not connected, and its Secret has another URL than Rancher's setting.
const FORCE: &str = "--force=agent,address";

/// A cluster whose agent was restarted with a wrong URL in its Secret, and the context that does not go through it.
async fn with_a_wrong_url(storage: TokenStorage) -> Result<(RancherFixture, String)> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let direct = format!("{}-direct", fixture.cluster.id);
    let secret = State::of(&fixture).await?.deployment.secret;
    let kubectl = async |words: &[&str]| {
        let side = ["--context", &direct, "-n", "cattle-system"];
        fixture.shell.kubectl(side.iter().chain(words)).run().await?.expect(0)
    };
    let wrong = r#"{"stringData":{"url":"https://rancher.invalid"}}"#;
    kubectl(&["patch", "secret", &secret, "-p", wrong]).await?;
    kubectl(&["delete", "pods", "-l", "app=cattle-cluster-agent"]).await?;
    until("Rancher to report the agent as not connected", async || {
        let report = fixture.rancher.report(&fixture.cluster).await?;
        let gone = report.sessions.is_empty() && report.conditions["Connected"] == "False";
        Ok((gone && State::of(&fixture).await?.pods.len() == 1).then_some(()))
    })
    .await?;
    Ok((fixture, direct))
}

/// The agent works with a new token, which is that of `system`, and Rancher rejects the old one.
async fn expect_new_token(fixture: &RancherFixture, start: &State, outcome: &CommandOutput) -> Result<()> {
    let now = State::of(fixture).await?;
    ensure!(
        now.named() != start.named() && now.named() == now.system(),
        "{now:#?}\n{outcome}"
    );
    ensure!(now.report.fingerprints() == [now.named()], "{now:#?}\n{outcome}");
    ensure!(
        !now.report.accepted.iter().any(|token| token == start.named()),
        "{now:#?}\n{outcome}"
    );
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_does_not_copy_a_wrong_url_into_the_new_secret(#[case] storage: TokenStorage) -> Result<()> {
    let (fixture, direct) = with_a_wrong_url(storage).await?;
    let start = State::of(&fixture).await?;
    let rotate = [
        "rotate",
        &fixture.cluster.id,
        "--yes",
        "--settle",
        "1s",
        FORCE,
        "--downstream-context",
        &direct,
    ];
    let outcome = fixture.shell.crt(rotate).run().await?.expect(0)?;
    expect_new_token(&fixture, &start, &outcome).await
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rollback_to_an_agent_that_did_not_work_ends(#[case] storage: TokenStorage) -> Result<()> {
    let (fixture, direct) = with_a_wrong_url(storage).await?;
    let start = State::of(&fixture).await?;
    let id = fixture.cluster.id.as_str();
    fixture.rancher.fault(&json!({ "refuseNewTokens": [id] })).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(On::write().path("*/deployments/*"), Fault::Kill(Moment::After));
    let common = ["--yes", "--settle", "1s", FORCE, "--downstream-context", &direct];
    let run = shell.crt(["rotate", id].iter().chain(&common)).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    let outcome = shell
        .crt(["rollback", id].iter().chain(&common))
        .run()
        .await?
        .expect(0)?;
    let now = State::of(&fixture).await?;
    assert_eq!(now.tokens, start.tokens, "{outcome}");
    assert_eq!(now.contents, start.contents, "{outcome}");
    assert_eq!(
        (&now.deployment.secret, now.deployment.settings),
        (&start.deployment.secret, start.deployment.settings),
        "{outcome}"
    );
    ensure!(now.temporary.is_empty() && now.graces.is_empty(), "{now:#?}\n{outcome}");
    Ok(())
}

/// An agent that has connected with the new token is not disconnected for the sake of one that never worked.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rollback_is_refused_where_only_the_new_token_works(#[case] storage: TokenStorage) -> Result<()> {
    let (fixture, direct) = with_a_wrong_url(storage).await?;
    let id = fixture.cluster.id.as_str();
    let (proxy, shell) = fixture.behind_proxy().await?;
    // The second write to the Deployment releases the rollout, once the new agent is connected.
    proxy.plan(On::write().path("*/deployments/*").nth(2), Fault::Kill(Moment::Before));
    let common = ["--yes", "--settle", "1s", FORCE, "--downstream-context", &direct];
    let run = shell.crt(["rotate", id].iter().chain(&common)).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    let rollback = ["rollback", id];
    let outcome = shell.crt(rollback.iter().chain(&common)).run().await?.expect(4)?;
    ensure!(outcome.stderr.contains("would disconnect it"), "{outcome}");
    let report = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(report.connected_since.is_some(), "{report:?}\n{outcome}");
    // As the hint says. The rollback has not begun.
    ensure!(outcome.stderr.contains("resumes the rotation"), "{outcome}");
    let flags = ["--yes", "--settle", "1s"];
    let outcome = shell.follow(&outcome, "kubectl crt rotate", &flags).await?.expect(0)?;
    let now = State::of(&fixture).await?;
    ensure!(now.report.fingerprints() == [now.named()], "{now:#?}\n{outcome}");
    Ok(())
}

/// The flag that a refusal names.
fn advertised(refused: &CommandOutput) -> Option<String> {
    let hint = |line: &str| Some(line.strip_prefix("hint: ")?.split_once(" overrides ")?.0.to_owned());
    refused.stderr.lines().find_map(hint)
}

/// The rollout is still held, and what the message says is true.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_lease_was_deleted_is_started_anew_as_the_message_says(
    #[case] storage: TokenStorage,
) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "rouen").await?;
    let start = State::of(&fixture).await?;
    let id = fixture.cluster.id.as_str();
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(On::write().path("*/deployments/*").nth(2), Fault::Kill(Moment::Before));
    let rotate = ["rotate", id, "--yes", "--settle", "1s"];
    let run = shell.crt(rotate).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    let delete = ["-n", id, "delete", "lease", "kubectl-crt"];
    fixture.shell.kubectl(delete).run().await?.expect(0)?;
    let mut refused = shell.crt(rotate).run().await?.expect(1)?;
    if storage == TokenStorage::Secret {
        // There is one place for a previous value, and the old agent still uses it.
        ensure!(advertised(&refused).is_none(), "{refused}");
        let wait = "hint: wait until the rollout of the agent is complete";
        ensure!(refused.stderr.contains(wait), "{refused}");
        let direct = format!("{id}-direct");
        let side = ["--context", &direct, "-n", "cattle-system"];
        let release = [
            "patch",
            "deployment",
            "cattle-cluster-agent",
            "-p",
            r#"{"spec":{"minReadySeconds":0}}"#,
        ];
        let release = fixture.shell.kubectl(side.iter().chain(&release));
        release.run().await?.expect(0)?;
        until("the old agent to terminate", async || {
            Ok((State::of(&fixture).await?.pods.len() == 1).then_some(()))
        })
        .await?;
        refused = shell.crt(rotate).run().await?.expect(1)?;
    }
    let force = advertised(&refused).with_context(|| refused.to_string())?;
    let forced = shell
        .crt(rotate.iter().chain([&force.as_str()]))
        .run()
        .await?
        .expect(0)?;
    expect_new_token(&fixture, &start, &forced).await
}
