//! A user who may not look at the agent on the downstream cluster: Rancher itself deploys the new token.

use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, Shell, everything, mask_output};
use insta::{allow_duplicates, assert_snapshot};
use rstest::rstest;
use serde_json::json;
use test_cluster::{Fault, FaultProxy, Kubeconfig, Moment, On, Registration, TestEnvironment, TokenStorage, Upstream};

use super::refusals::refused;
use crate::state::State;

const FORCE: &str = "--force=weak-proof";

/// A cluster, and the shell of a user who has every permission in Rancher and none on the cluster.
async fn begin(storage: TokenStorage, registration: &Registration) -> Result<(RancherFixture, Shell)> {
    let fixture = RancherFixture::begin_with(storage, registration).await?;
    let shell = fixture.shell_with("above", everything(), json!([])).await?;
    Ok((fixture, shell))
}

async fn imported(storage: TokenStorage) -> Result<(RancherFixture, Shell)> {
    begin(storage, &Registration::imported("oslo").quick()).await
}

/// Every token has another value than at the start, and the agent that of `system`. The agent itself deletes its old Secret.
async fn is_rotated(fixture: &RancherFixture, start: &State) -> Result<()> {
    fixture.rancher.agent_cleanup(&fixture.cluster).await?;
    let now = State::of(fixture).await?;
    for (name, value) in &start.tokens {
        ensure!(now.tokens.get(name).is_some_and(|now| now != value), "{name}: {now:#?}");
        ensure!(!now.report.accepted.contains(value), "{value} is accepted: {now:#?}");
    }
    ensure!(now.named() == now.system(), "{now:#?}");
    ensure!(now.report.fingerprints() == [now.system()], "{now:#?}");
    ensure!(now.graces.is_empty() && now.temporary.is_empty(), "{now:#?}");
    has_ended(&now)
}

/// The agent has never lost its token, and no run is left.
fn has_ended(now: &State) -> Result<()> {
    let without = &now.report.without;
    ensure!(
        without.valid_token.is_empty() && without.restart_safety.is_empty(),
        "{now:#?}"
    );
    ensure!(
        now.lease
            .as_ref()
            .is_some_and(|lease| lease.journal.is_none() && lease.holder.is_none()),
        "{now:#?}"
    );
    Ok(())
}

#[rstest]
#[case::through_rancher(&[])]
#[case::with_a_direct_context(&["--downstream-context"])]
#[tokio::test(flavor = "multi_thread")]
async fn rancher_deploys_the_token_to_an_agent_that_cannot_be_read(#[case] direct: &[&str]) -> Result<()> {
    let (fixture, shell) = imported(TokenStorage::Secret).await?;
    let id = fixture.cluster.id.as_str();
    let context = format!("{id}-direct");
    let context = direct.iter().copied().chain(direct.iter().map(|_| context.as_str()));
    let rotate: Vec<&str> = ["rotate", id, "--settle", "0s"].into_iter().chain(context).collect();
    let with = |more: &[&'static str]| rotate.iter().chain(more).copied().collect::<Vec<&str>>();
    let refusal = refused(&fixture, &shell, &with(&["--yes"])).await?;
    let refusal = refusal.split_once('\n').context("no output")?.1.to_owned();
    allow_duplicates! { assert_snapshot!(refusal, @r#"
    ----- stderr -----
    error: cannot rotate cluster oslo (c-id123): cannot read the agent on the downstream cluster: deployments.apps "cattle-cluster-agent" is forbidden: User "u-above-c-id123" cannot get resource "deployments" in API group "apps" in the namespace "cattle-system"
    hint: request that permission; with --force=weak-proof Rancher deploys the new token without a held rollout, and what Rancher says of it is trusted
    hint: --force=weak-proof overrides this check
    ----- exit status: 1 -----
    "#) }

    let plan = shell.crt(with(&["--dry-run", FORCE])).run().await?.expect(0)?;
    let start = State::of(&fixture).await?;
    let plan = mask_output(&plan.stdout.replace(start.system(), "<system>"));
    let plan = plan.replace(&start.tokens["default-token"], "<default>");
    let (_, plan) = plan.split_once('\n').context("no plan")?;
    allow_duplicates! { assert_snapshot!(plan, @r#"
      survey   Rancher has deployed <system> last, the value of registration token "system" (token storage: secret); without permissions on the downstream cluster the agent is proven by Rancher's record of the token that it has applied and a call through the agent's tunnel alone
      make     set a new value on registration token "system"
               wait for Rancher to accept <new>
      prove    annotate the cluster, so that Rancher applies the token of "system"
               wait for Rancher to apply <new> itself
               wait for redeploys that Rancher may have begun before (--settle)
      retire   revoke <system>: drop it as the previous token of "system"
               set a new value on registration token "default-token"
      confirm  wait for Rancher to reject <system>
    Also invalidated:
      <system> (the agent's): import URLs, registration and node join commands, and Terraform state that contain it
      AAAAAAAAAA (default-token): import URLs, registration and node join commands, and Terraform state that contain it
    "#) }

    let done = shell.crt(with(&["--yes", FORCE])).run().await?.expect(0)?;
    ensure!(
        done.to_string().contains("Not verified: which token the agent's"),
        "{done}"
    );
    is_rotated(&fixture, &start).await
}

/// With storage `status` Rancher does not deploy a new token by itself.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_deploys_the_token_with_status_storage() -> Result<()> {
    let (fixture, shell) = imported(TokenStorage::Status).await?;
    let refusal = refused(&fixture, &shell, &["rotate", &fixture.cluster.id, "--yes", FORCE]).await?;
    assert_snapshot!(refusal, @r#"
    $ kubectl-crt rotate c-id123 --yes --force=weak-proof
    ----- stderr -----
    error: cannot rotate cluster oslo (c-id123): cannot read the agent on the downstream cluster: deployments.apps "cattle-cluster-agent" is forbidden: User "u-above-c-id123" cannot get resource "deployments" in API group "apps" in the namespace "cattle-system"
    hint: request that permission: with token storage `status` Rancher does not deploy a new token by itself
    ----- exit status: 1 -----
    "#);
    Ok(())
}

/// From a context that is not Rancher's no call goes through the agent's tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_proves_an_agent_that_can_neither_be_read_nor_called() -> Result<()> {
    let (fixture, shell) = imported(TokenStorage::Secret).await?;
    let direct = format!("{}-direct", fixture.cluster.id);
    let rotate = ["rotate", &fixture.cluster.id, "--yes", FORCE];
    let contexts = ["--context", "management", "--downstream-context", &direct];
    let args: Vec<&str> = rotate.into_iter().chain(contexts).collect();
    let refusal = refused(&fixture, &shell, &args).await?;
    ensure!(
        refusal.contains("can neither be looked at nor called through Rancher"),
        "{refusal}"
    );
    Ok(())
}

/// Kills a rotation after a write. Returns what it has left.
async fn killed(fixture: &RancherFixture, shell: &Shell, on: On) -> Result<State> {
    let proxy = FaultProxy::start([fixture.rancher.upstream(), Upstream::admin_of(fixture.management)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(shell.kubeconfig())?);
    let behind = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    proxy.plan(on, Fault::Kill(Moment::After));
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s", FORCE];
    let run = behind.crt(rotate).start().await?;
    proxy.victim(run.pid()?);
    run.finish()
        .await?
        .expect_killed()
        .with_context(|| proxy.transcript())?;
    State::of(fixture).await
}

/// What the run is killed after: the new value of `system`, and the change of the Cluster that Rancher acts on.
fn writes() -> [On; 2] {
    let path = |path: &str| On::write().path(path);
    [
        path("*/secrets/crt-token-system"),
        path("*/management.cattle.io/v3/clusters/*"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rotation_is_resumed_without_permissions_downstream() -> Result<()> {
    let (fixture, shell) = imported(TokenStorage::Secret).await?;
    let start = State::of(&fixture).await?;
    let [set, _] = writes();
    killed(&fixture, &shell, set).await?;
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s"];
    let unforced = shell.crt(rotate).run().await?.expect(4)?;
    ensure!(
        unforced
            .stderr
            .contains("the rotation was begun without this permission"),
        "{unforced}"
    );
    shell.crt(rotate.iter().chain(&[FORCE])).run().await?.expect(0)?;
    is_rotated(&fixture, &start).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rotation_is_rolled_back_without_permissions_downstream() -> Result<()> {
    let (fixture, shell) = imported(TokenStorage::Secret).await?;
    let start = State::of(&fixture).await?;
    let [_, trigger] = writes();
    let left = killed(&fixture, &shell, trigger).await?;
    let new = left.new_token().context("no new token")?;
    let rollback = ["rollback", &fixture.cluster.id, "--yes", "--settle", "0s", FORCE];
    shell.crt(rollback).run().await?.expect(0)?;
    fixture.rancher.agent_cleanup(&fixture.cluster).await?;
    let now = State::of(&fixture).await?;
    ensure!((&now.tokens, &now.graces) == (&start.tokens, &start.graces), "{now:#?}");
    ensure!(now.named() == start.named(), "{now:#?}");
    ensure!(now.report.accepted.iter().all(|token| token != new), "{now:#?}");
    has_ended(&now)
}

/// Who has the permissions proves the agent itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_began_without_permissions_is_finished_with_them() -> Result<()> {
    let (fixture, shell) = imported(TokenStorage::Secret).await?;
    for (on, verb) in writes().into_iter().zip(["rotate", "rollback"]) {
        let start = State::of(&fixture).await?;
        killed(&fixture, &shell, on).await?;
        let with = [verb, &fixture.cluster.id, "--yes", "--settle", "0s"];
        fixture.shell.crt(with).run().await?.expect(0)?;
        if verb == "rotate" {
            is_rotated(&fixture, &start).await?;
        } else {
            let now = State::of(&fixture).await?;
            ensure!((&now.tokens, now.named()) == (&start.tokens, start.named()), "{now:#?}");
            has_ended(&now)?;
        }
    }
    Ok(())
}

/// A rotation that has held the rollout of the agent needs someone who can release it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_began_with_permissions_is_not_finished_without_them() -> Result<()> {
    let (fixture, shell) = imported(TokenStorage::Secret).await?;
    let start = State::of(&fixture).await?;
    killed(&fixture, &fixture.shell, On::write().path("*/deployments/*")).await?;
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s", FORCE];
    let pending = shell.crt(rotate).run().await?.expect(4)?;
    ensure!(pending.stderr.contains("cannot get resource"), "{pending}");
    fixture.shell.crt(rotate).run().await?.expect(0)?;
    is_rotated(&fixture, &start).await
}

/// The planner deploys the first token, whatever the storage is.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn the_planner_deploys_the_token_of_a_provisioned_cluster(#[case] storage: TokenStorage) -> Result<()> {
    let registration = Registration::imported("gent").quick().provisioned(2);
    let (fixture, shell) = begin(storage, &registration).await?;
    let start = State::of(&fixture).await?;
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s", FORCE];
    let plan = shell.crt(rotate.iter().chain(&["--dry-run"])).run().await?.expect(0)?;
    ensure!(
        plan.stdout
            .contains("the plans that the control-plane machines have applied"),
        "{plan}"
    );
    shell.crt(rotate).run().await?.expect(0)?;
    is_rotated(&fixture, &start).await
}
