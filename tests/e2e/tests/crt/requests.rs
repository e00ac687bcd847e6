//! The number of requests of a rotation. The writes are exactly those in `docs/requests.md`. The reads have a limit that
//! depends on the number of observations.

use anyhow::{Result, ensure};
use e2e::{Cost, RancherFixture};
use rstest::rstest;
use test_cluster::{Request, TokenStorage};

use crate::writes::essence;

/// The reads of the preflight checks before the confirmation and in the engine, and those that happen once.
const PREFLIGHT: usize = 44;

/// The reads of one observation: Cluster, tokens, Secrets, feature; Deployment, pods, record; a Secret for each value; two
/// probes of two endpoints for two values; a call through the tunnel.
const OF_AN_OBSERVATION: usize = 18;

/// Observations in a second of waiting. Each step adds one.
const OBSERVATIONS_A_SECOND: f64 = 2.5;

/// How the downstream cluster is reached, and which tokens change.
#[derive(Clone, Copy, Debug)]
enum Mode {
    All,
    OnlyAgent,
    Direct,
}

impl Mode {
    fn title(self) -> &'static str {
        match self {
            Self::All => "all tokens",
            Self::OnlyAgent => "only the agent's token",
            Self::Direct => "all tokens, with a context of the cluster itself",
        }
    }

    fn args(self, id: &str) -> Vec<String> {
        match self {
            Self::All => Vec::new(),
            Self::OnlyAgent => vec!["--only-agent".into()],
            Self::Direct => vec!["--downstream-context".into(), format!("{id}-direct")],
        }
    }
}

/// A write in the words of the document: `PATCH clusterregistrationtokens, management`.
fn what(write: &Request) -> String {
    let downstream = write.path.contains("/namespaces/cattle-system/");
    let cluster = if downstream { "downstream" } else { "management" };
    let kind = essence(write);
    let kind = kind.split('/').next().unwrap_or_default();
    format!("{kind}, {cluster}")
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_sends_the_documented_writes(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(Mode::All, Mode::OnlyAgent, Mode::Direct)] mode: Mode,
) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let id = fixture.cluster.id.as_str();
    let rotate = ["rotate", id, "--yes", "--settle", "1s"].map(str::to_owned);
    let outcome = shell
        .crt(rotate.into_iter().chain(mode.args(id)))
        .run()
        .await?
        .expect(0)?;

    let title = match storage {
        TokenStorage::Status => "Storage `status`",
        TokenStorage::Secret => "Storage `secret`",
    };
    let cost = Cost::of(&proxy);
    cost.is_documented(&format!("{title}, {}", mode.title()), what)?;
    // One takes the lock, one starts the run, one precedes each write and each wait, one releases the lock. Each ten seconds
    // add a renewal.
    cost.leases_follow(8, outcome.took)?;

    let is_observation =
        |request: &&Request| request.path.ends_with(&format!("/clusters/{id}")) && request.method == "GET";
    let observations = cost.reads.iter().filter(is_observation).count();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds of a test, times two and a half"
    )]
    let waiting = (outcome.took.as_secs_f64() * OBSERVATIONS_A_SECOND) as usize;
    cost.at_most(
        cost.writes.len() + cost.leases.len() + waiting,
        "observations",
        observations,
    )?;
    cost.at_most(PREFLIGHT + observations * OF_AN_OBSERVATION, "reads", cost.reads.len())?;
    let ours = |request: &Request| request.user_agent.starts_with("kubectl-crt/");
    ensure!(proxy.requests().iter().all(ours), "{}", proxy.transcript());
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn read_only_commands_send_few_requests_and_no_writes(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let id = fixture.cluster.id.as_str();
    for (args, most) in [
        (vec!["list", id], 6),
        (vec!["list", id, "--probe"], 18),
        (vec!["list"], 6),
        (vec!["status", id], 24),
        (vec!["verify", id], 24),
        (vec!["rotate", id, "--dry-run"], PREFLIGHT),
        (vec!["rotate", id, "--dry-run=server"], PREFLIGHT + 10),
        (vec!["rollback", id, "--dry-run"], 10),
        (vec!["version"], 10),
    ] {
        let before = proxy.requests().len();
        shell.crt(&args).run().await?.expect(0)?;
        let sent = proxy.requests().split_off(before);
        println!("{storage:?} {args:?}: {}", sent.len());
        ensure!(
            sent.len() <= most,
            "{args:?}: {} requests, at most {most}\n{}",
            sent.len(),
            proxy.transcript()
        );
    }
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());
    Ok(())
}
