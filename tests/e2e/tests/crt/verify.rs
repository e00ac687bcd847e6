//! `kubectl crt verify`

use anyhow::Result;
use e2e::{CommandOutput, RancherFixture, Shell, mask_output};
use insta::{allow_duplicates, assert_snapshot};
use rstest::rstest;
use serde_json::Value;
use test_cluster::{Registration, TokenStorage};

use crate::manual_changes;

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn verify_succeeds_for_a_healthy_agent(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let seen = mask_output(
        &fixture
            .shell
            .crt(["verify", &fixture.cluster.id])
            .run()
            .await?
            .to_string(),
    );
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify c-id123
    + secret    Secret cattle-credentials-AAAAAAAAAA has BBBBBBBBBB
    + pods      1 of 1 agent pods ready
    + tunnels   the agent that connected last uses BBBBBBBBBB for both tunnels
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + call      a call through Rancher succeeded (Kubernetes <version>)
    proven: the agent of c-id123 uses BBBBBBBBBB, and Rancher accepts it
    ----- stderr -----
    ----- exit status: 0 -----
    "); }
    let document = fixture
        .shell
        .crt(["verify", &fixture.cluster.id, "-o", "json"])
        .run()
        .await?
        .expect(0)?;
    let document: Value = serde_json::from_str(&document.stdout)?;
    let token = crate::state::fingerprint(&manual_changes::values(&fixture).await?["system"]);
    assert_eq!(document["fingerprint"], Value::String(token), "{document:#}");
    assert_eq!(document["proven"], Value::Bool(true), "{document:#}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn verify_fails_when_the_agents_token_is_revoked(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    // Its tunnels stay open, because Rancher checks the token only when a tunnel is opened.
    manual_changes::replace_system(&fixture, &"x7k2p".repeat(10)).await?;
    let outcome = fixture
        .shell
        .crt(["verify", &fixture.cluster.id])
        .run()
        .await?
        .expect(1)?;
    let seen = mask_output(&outcome.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify c-id123
    + secret    Secret cattle-credentials-AAAAAAAAAA has BBBBBBBBBB
    + pods      1 of 1 agent pods ready
    + tunnels   the agent that connected last uses BBBBBBBBBB for both tunnels
    x accepted  Rancher rejects BBBBBBBBBB
    + call      a call through Rancher succeeded (Kubernetes <version>)
    not proven: see the failed checks above
    ----- stderr -----
    ----- exit status: 1 -----
    "); }
    Ok(())
}

/// Verifies a token from standard input.
async fn verify(shell: &Shell, args: &[&str], token: &str) -> Result<CommandOutput> {
    let args = ["verify", "--token-stdin"].iter().chain(args);
    shell.crt(args).stdin(format!("{token}\n")).run().await
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn verify_checks_a_token_from_stdin(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let other = fixture
        .rancher
        .register_as(&Registration::imported("bonn").quick())
        .await?;
    let (id, token) = (
        fixture.cluster.id.as_str(),
        manual_changes::values(&fixture).await?["system"].clone(),
    );
    let shell = &fixture.shell;

    let seen = mask_output(&verify(shell, &[], &token).await?.expect(0)?.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify --token-stdin
    + accepted  Rancher accepts AAAAAAAAAA as a token of cluster c-id123
    AAAAAAAAAA is valid
    ----- stderr -----
    ----- exit status: 0 -----
    "); }
    let cluster = verify(shell, &["-o", "jsonpath={.cluster} {.proven}"], &token)
        .await?
        .expect(0)?;
    assert_eq!(cluster.stdout, format!("{id} true"));
    verify(shell, &[id], &token).await?.expect(0)?;
    let of_another = verify(shell, &[&other.id], &token).await?.expect(1)?;
    let sentence = format!("but as a token of cluster {id}");
    assert!(of_another.stdout.contains(&sentence), "{of_another}");

    shell
        .crt(["rotate", id, "--yes", "--settle", "1s"])
        .run()
        .await?
        .expect(0)?;
    let seen = mask_output(&verify(shell, &[], &token).await?.expect(1)?.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify --token-stdin
    x accepted  Rancher rejects AAAAAAAAAA
    AAAAAAAAAA is not proven to be valid
    ----- stderr -----
    ----- exit status: 1 -----
    "); }
    verify(shell, &[], &manual_changes::values(&fixture).await?["system"])
        .await?
        .expect(0)?;
    let seen = mask_output(&verify(shell, &[], "").await?.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify --token-stdin
    ----- stderr -----
    error: no token on stdin
    ----- exit status: 2 -----
    "); }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_requires_a_cluster_or_a_token() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let outcome = fixture.shell.crt(["verify"]).run().await?.expect(2)?;
    assert_eq!(outcome.stdout, "", "{outcome}");
    // The kubeconfig of the management cluster has no route to the agent.
    let verify = ["verify", &fixture.cluster.id, "--context", "management"];
    let seen = mask_output(&fixture.shell.crt(verify).run().await?.expect(1)?.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify c-id123 --context management
    ----- stderr -----
    error: cannot reach downstream cluster c-id123: --context is not a context of Rancher, and there is no other route
    hint: pass a context of cluster c-id123 with --downstream-context
    hint: pass a context of Rancher (…/k8s/clusters/local) with --context
    ----- exit status: 1 -----
    "); }
    Ok(())
}
