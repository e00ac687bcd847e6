//! A context that may only read: it gives the agent's old token, and nothing else leads to the cluster.

use anyhow::{Result, ensure};
use e2e::{RancherFixture, Shell, reading, until};
use rstest::rstest;
use test_cluster::{Fault, FaultProxy, Moment, On, TestEnvironment, TokenStorage};

use super::{QUICK, is_lost, is_rescued, lose, unknown_to_rancher, with_proxy};

/// How the agent has lost its token.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// All registration tokens were deleted.
    Deleted,
    /// `system` was given another value.
    Replaced,
}

impl Loss {
    /// Returns the token of the agent.
    async fn of(self, fixture: &RancherFixture) -> Result<String> {
        if let Self::Deleted = self {
            return lose(fixture).await;
        }
        let (rancher, cluster) = (fixture.rancher, &fixture.cluster);
        let old = unknown_to_rancher(cluster);
        rancher.set_agent_token(cluster, &old).await?;
        rancher.restart_agent(cluster).await?;
        is_lost(fixture, cluster).await?;
        Ok(old)
    }
}

/// The admin of Rancher, whose context of the cluster itself may only read.
async fn reader(fixture: &RancherFixture) -> Result<(FaultProxy, Shell)> {
    let reader = fixture.user_with("reader", reading(), reading()).await?;
    let rancher = fixture.rancher;
    let kubeconfig = rancher.with_cluster(rancher.kubeconfig(), &fixture.cluster, &reader);
    let (proxy, kubeconfig) = with_proxy(fixture, kubeconfig).await?;
    Ok((proxy, Shell::new(TestEnvironment::shared().await?, &kubeconfig)?))
}

/// The refusal names the command. The value is read from the agent's Secret.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn rescue_reads_the_old_token_over_a_read_only_context(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(Loss::Deleted, Loss::Replaced)] loss: Loss,
) -> Result<()> {
    let fixture = RancherFixture::begin(storage, &format!("svendborg-{loss:?}").to_lowercase()).await?;
    let id = fixture.cluster.id.as_str();
    let old = loss.of(&fixture).await?;
    let (proxy, shell) = reader(&fixture).await?;
    let direct = format!("{id}-direct");
    let by_context = ["rescue", id, "--downstream-context", &direct];

    let refused = shell.crt(by_context.iter().chain(&["--yes"])).run().await?.expect(1)?;
    let hint = format!("kubectl crt rescue {id} --downstream-context {direct} --reactivate-old-token");
    assert_eq!(refused.commands(), [hint], "{refused}");
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());

    let rescued = shell.follow(&refused, "kubectl crt rescue", &QUICK).await?.expect(0)?;
    is_rescued(&fixture, &old, &rescued).await?;
    ensure!(!format!("{refused}{rescued}").contains(&old), "{rescued}");
    let writes = proxy.writes();
    let of_context = writes.iter().find(|write| write.path.starts_with("/direct/"));
    ensure!(of_context.is_none(), "{of_context:?}\n{}", proxy.transcript());
    Ok(())
}

/// Killed after the token was made valid again, when the agent may be connected already.
#[rstest]
#[case::status(TokenStorage::Status, "*/clusterregistrationtokens*")]
#[case::secret(TokenStorage::Secret, "*/secrets/crt-token-*")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rescue_over_a_read_only_context_resumes(
    #[case] storage: TokenStorage,
    #[case] path: &str,
    #[values(Loss::Deleted, Loss::Replaced)] loss: Loss,
) -> Result<()> {
    let fixture = RancherFixture::begin(storage, &format!("nyborg-{loss:?}").to_lowercase()).await?;
    let id = fixture.cluster.id.as_str();
    let old = loss.of(&fixture).await?;
    let (proxy, shell) = reader(&fixture).await?;
    let direct = format!("{id}-direct");
    let rescue = ["rescue", id, "--downstream-context", &direct, "--reactivate-old-token"];
    let rescue: Vec<&str> = rescue.into_iter().chain(QUICK).collect();
    proxy.plan(On::write().path(path), Fault::Kill(Moment::After));
    let run = shell.crt(&rescue).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    until("the agent to connect with its old token", async || {
        let report = fixture.rancher.report(&fixture.cluster).await?;
        Ok((!report.sessions.is_empty()).then_some(()))
    })
    .await?;
    let resumed = shell.crt(&rescue).run().await?.expect(0)?;
    is_rescued(&fixture, &old, &resumed).await
}
