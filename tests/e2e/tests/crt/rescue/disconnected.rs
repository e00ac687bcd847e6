//! `kubectl crt rescue --disconnected`: every cluster of a Rancher whose agent is not connected, and no other one.

use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, Shell, until};
use futures::future::try_join_all;
use rstest::rstest;
use serde_json::{Value, json};
use test_cluster::{FaultProxy, Registration, TestEnvironment, TokenStorage, User};

use super::{QUICK, is_lost, is_rescued, lose, with_proxy};
use crate::state::State;

/// A token that Rancher does not know.
const REVOKED: &str = "k2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x";

/// Three clusters of a Rancher of their own: two are lost for different causes, and one is connected.
struct Fleet {
    /// All its registration tokens were deleted. Its context is found by its CA.
    deleted: RancherFixture,
    /// Its agent has a revoked token. Its context is given.
    revoked: RancherFixture,
    connected: RancherFixture,
    /// The token of the agent of `deleted`.
    old: String,
    shell: Shell,
    /// In front of Rancher, and of the own address of `deleted`.
    proxies: [FaultProxy; 2],
}

impl Fleet {
    async fn begin(storage: TokenStorage) -> Result<Self> {
        let name = format!("rescue-disconnected-{}", storage.word());
        let deleted = RancherFixture::begin_apart(storage, &name).await?;
        let others = ["revoked", "connected"].map(async |name| {
            let registration = Registration::imported(name).quick();
            let cluster = deleted.rancher.register_as(&registration).await?;
            let kubeconfig = deleted.rancher.kubeconfig();
            let kubeconfig = deleted.rancher.with_cluster(kubeconfig, &cluster, &User::admin());
            anyhow::Ok(RancherFixture {
                cluster,
                shell: Shell::new(TestEnvironment::shared().await?, &kubeconfig)?,
                ..deleted
            })
        });
        let others: [RancherFixture; 2] = try_join_all(others).await?.try_into().ok().context("not two")?;
        let [revoked, connected] = others;
        let (rancher, cluster) = (deleted.rancher, &revoked.cluster);
        rancher.set_agent_token(cluster, REVOKED).await?;
        rancher.restart_agent(cluster).await?;
        is_lost(&revoked, cluster).await?;
        let old = lose(&deleted).await?;

        let kubeconfig = rancher.with_cluster(rancher.kubeconfig(), cluster, &User::admin());
        let own = ("own-address", &deleted.cluster, &User::admin());
        let (address, kubeconfig) = rancher.with_own_address(kubeconfig, own).await?;
        let (proxy, kubeconfig) = with_proxy(&deleted, kubeconfig).await?;
        let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
        Ok(Self {
            deleted,
            revoked,
            connected,
            old,
            shell,
            proxies: [proxy, address],
        })
    }

    /// `rescue --disconnected` with these flags.
    fn rescue(&self, flags: &[&str]) -> Vec<String> {
        let id = &self.revoked.cluster.id;
        let context = format!("--downstream-context={id}={id}-direct");
        let words = ["rescue", "--disconnected", "--match-contexts", &context];
        words.iter().chain(flags).map(|word| (*word).to_owned()).collect()
    }

    /// The paths of all writes.
    fn writes(&self) -> Vec<String> {
        let writes = self.proxies.iter().flat_map(FaultProxy::writes);
        writes.map(|write| write.to_string()).collect()
    }
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rescue_of_all_disconnected_clusters_leaves_the_others_alone(#[case] storage: TokenStorage) -> Result<()> {
    let fleet = Fleet::begin(storage).await?;
    let ids = [&fleet.deleted, &fleet.revoked, &fleet.connected].map(|fixture| fixture.cluster.id.as_str());
    let [deleted, revoked, connected] = ids;
    let before = State::of(&fleet.connected).await?;

    // A row for each of the two, and no write.
    let planned = fleet.shell.crt(fleet.rescue(&["--dry-run"])).run().await?.expect(0)?;
    let rows: Vec<&str> = planned.stdout.lines().skip(1).collect();
    ensure!(rows.len() == 2, "{planned}");
    for (id, way) in [(deleted, "own-address"), (revoked, &*format!("{revoked}-direct"))] {
        let row = rows.iter().find(|row| row.contains(id));
        let is_complete = row.is_some_and(|row| row.contains(&format!("by context {way}")));
        ensure!(is_complete, "{id} {way:?} is not in\n{planned}");
    }
    let planned = fleet.rescue(&["--dry-run", "-o", "json"]);
    let planned = fleet.shell.crt(planned).run().await?.expect(0)?;
    let document: Value = serde_json::from_str(&planned.stdout)?;
    let rows = document["items"].as_array().context("no items")?;
    let cause = |id: &str| {
        rows.iter()
            .find(|row| row["cluster"]["id"] == id)
            .map(|row| &row["cause"])
    };
    // Rancher brings `default-token` back at the next event of the cluster.
    let of_deleted = [json!("tokens-deleted"), json!("token-revoked")];
    ensure!(
        cause(deleted).is_some_and(|cause| of_deleted.contains(cause)),
        "{planned}"
    );
    ensure!(cause(revoked) == Some(&of_deleted[1]), "{planned}");
    ensure!(fleet.writes().is_empty(), "{:#?}", fleet.writes());

    let rescued = fleet.shell.crt(fleet.rescue(&QUICK)).run().await?.expect(0)?;
    is_rescued(&fleet.deleted, &fleet.old, &rescued).await?;
    is_rescued(&fleet.revoked, REVOKED, &rescued).await?;

    let now = State::of(&fleet.connected).await?;
    assert_eq!((&now.tokens, &now.contents), (&before.tokens, &before.contents));
    assert_eq!((&now.deployment, &now.pods), (&before.deployment, &before.pods));
    ensure!(
        now.lease.is_none() && now.report.fingerprints() == before.report.fingerprints(),
        "{now:#?}"
    );
    let of_connected: Vec<_> = fleet
        .writes()
        .into_iter()
        .filter(|write| write.contains(connected))
        .collect();
    ensure!(of_connected.is_empty(), "{of_connected:#?}\n{rescued}");

    for fixture in [&fleet.deleted, &fleet.revoked] {
        until("Rancher to report the agent as connected", async || {
            let report = fixture.rancher.report(&fixture.cluster).await?;
            Ok((report.conditions["Connected"] == "True").then_some(()))
        })
        .await?;
    }
    let again = fleet.shell.crt(fleet.rescue(&["--yes"])).run().await?.expect(0)?;
    ensure!(again.stderr.contains("All clusters are connected."), "{again}");
    Ok(())
}
