//! What `kubectl crt rescue` refuses before anything is written.

use anyhow::{Result, ensure};
use e2e::{RancherFixture, Shell};
use test_cluster::{Kubeconfig, Registration, TestEnvironment, TokenStorage, User};

use super::{lose, with_proxy};

const TOKEN: &str = "k2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x";

#[tokio::test(flavor = "multi_thread")]
async fn usage_errors_of_rescue_change_nothing() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "kolding").await?;
    let twins = Registration::imported("viborg").quick();
    let (a, b) = tokio::try_join!(fixture.rancher.register_as(&twins), fixture.rancher.register_as(&twins))?;
    let (id, a, b) = (fixture.cluster.id.as_str(), a.id.as_str(), b.id.as_str());
    let (proxy, shell) = fixture.behind_proxy().await?;
    let old = ["--reactivate-old-token", "--token-stdin", "--yes"];
    let of_a = format!("{a}={id}-direct");
    let twice = format!("{id}=other");
    let cases: &[(u8, &[&str], &str, &str)] = &[
        (2, &["rescue"], "", "required"),
        (
            1,
            &["rescue", "no-such-cluster", "--yes"],
            "",
            "cluster \"no-such-cluster\" not found",
        ),
        (
            2,
            &["rescue", "viborg", "--yes"],
            "",
            "2 clusters have the name \"viborg\"",
        ),
        (
            2,
            &["rescue", id, "--token-stdin", "--yes"],
            TOKEN,
            "--reactivate-old-token",
        ),
        (
            2,
            &["rescue", id, "--reactivate-old-token", "--token-stdin"],
            TOKEN,
            "--token-stdin needs --yes",
        ),
        (
            2,
            &["rescue", a, b, old[0], old[1], old[2]],
            TOKEN,
            "but 2 clusters are selected",
        ),
        (2, &["rescue", id, old[0], old[1], old[2]], "\n", "no token on stdin"),
        (
            2,
            &["rescue", id, old[0], old[1], old[2]],
            "{\"token\": \"k2vq5rnt\"}",
            "not a registration token",
        ),
        (
            2,
            &["rescue", a, b, "--yes", "--downstream-context", "x"],
            "",
            "leads to one cluster, but 2 are selected",
        ),
        (
            2,
            &["rescue", id, "--yes", "--downstream-context", &of_a],
            "",
            "which is not selected",
        ),
        (
            2,
            &[
                "rescue",
                id,
                "--yes",
                "--downstream-context",
                "x",
                "--downstream-context",
                &twice,
            ],
            "",
            "has two contexts",
        ),
        (
            1,
            &["rescue", id, "--yes", "--downstream-context", "no-such-context"],
            "",
            "does not exist",
        ),
    ];
    for (code, args, stdin, expected) in cases {
        let refused = shell.crt(*args).stdin(*stdin).run().await?.expect(i32::from(*code))?;
        ensure!(refused.stderr.contains(expected), "{expected:?} is not in\n{refused}");
        ensure!(!refused.to_string().contains("k2vq5rnt"), "{refused}");
    }
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());
    Ok(())
}

/// Neither the context of another cluster nor a token that Rancher accepts already rescues anything.
#[tokio::test(flavor = "multi_thread")]
async fn rescue_refuses_what_does_not_lead_to_the_agent() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "herning").await?;
    let other = fixture
        .rancher
        .register_as(&Registration::imported("skive").quick())
        .await?;
    let of_other = fixture.rancher.token_values(&other).await?["system"].clone();
    let before = fixture.rancher.report(&other).await?;
    lose(&fixture).await?;
    let kubeconfig = Kubeconfig::read(fixture.shell.kubeconfig())?;
    let kubeconfig = fixture.rancher.with_cluster(kubeconfig, &other, &User::admin());
    let (proxy, kubeconfig) = with_proxy(&fixture, kubeconfig).await?;
    let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    let (id, wrong) = (fixture.cluster.id.as_str(), format!("{}-direct", other.id));
    for force in [&[][..], &["--force=context"]] {
        let rescue = ["rescue", id, "--yes", "--downstream-context", &wrong];
        let refused = shell.crt(rescue.iter().chain(force)).run().await?;
        ensure!(refused.code() == Some(1), "{refused}");
        let reason = match force {
            [] => "cannot verify that the downstream context leads to this cluster",
            _ => "omit --force=context",
        };
        ensure!(refused.stderr.contains(reason), "{reason:?} is not in\n{refused}");
    }
    // What is read there is about the other cluster, so it is no row of the table.
    let dry_run = ["rescue", id, "--dry-run", "--downstream-context", &wrong];
    let refused = shell.crt(dry_run).run().await?.expect(1)?;
    ensure!(!refused.stdout.contains(&wrong), "{refused}");
    let unmatched = shell.crt(["rescue", id, "--match-contexts"]).run().await?.expect(1)?;
    ensure!(
        unmatched
            .stderr
            .contains(&format!("cluster {id}: no context has its CA")),
        "{unmatched}"
    );
    let old = ["rescue", id, "--reactivate-old-token", "--token-stdin", "--yes"];
    let refused = shell.crt(old).stdin(of_other).run().await?.expect(1)?;
    ensure!(
        refused
            .stderr
            .contains("pass the token that the agent of this cluster has"),
        "{refused}"
    );
    let is_of_lease = |path: &str| path.contains("/leases");
    let writes = proxy.writes();
    ensure!(
        writes
            .iter()
            .all(|write| is_of_lease(&write.path) || write.path.contains("selfsubjectaccessreviews")),
        "{}",
        proxy.transcript()
    );
    assert_eq!(
        fixture.rancher.report(&other).await?.fingerprints(),
        before.fingerprints()
    );
    Ok(())
}
