//! No output, at any verbosity, shows a token.

use anyhow::Result;
use kube::api::ListParams;

use crate::fixture::{Fixture, token};

#[tokio::test(flavor = "multi_thread")]
async fn no_command_prints_a_token() -> Result<()> {
    let fixture = Fixture::begin("davos").await?;
    let id = fixture.id();
    let mut output = fixture.run(&["add", id, "-v=9"]).run().await?.expect(0)?.to_string();
    let first = token(&fixture.secret().await?)?;
    for args in [
        &["rotate", id, "--dry-run=server", "-v=9"][..],
        &["rotate", id, "--grace", "0s", "--yes", "-v=9", "-o", "yaml"],
        &["status", id, "-v=9"],
        &["status", id, "-o", "json", "-v=9"],
        &["rollback", id, "-v=9"],
    ] {
        output += &fixture.run(args).run().await?.expect(0)?.to_string();
    }
    let leases = fixture.leases().await?;
    let value = token(&fixture.secret().await?)?;
    output += &serde_json::to_string(&leases.list(&ListParams::default()).await?.items)?;
    for args in [
        &["list", "--probe", "-o", "yaml", "-v=9"][..],
        &["list", "--probe", "-o", "wide", "-v=9"],
        &["verify", id, "-o", "json", "-v=9"],
        &["add", id, "-v=9"],
        &["remove", id, "--dry-run", "-v=9"],
        &["remove", id, "--yes", "-v=9"],
    ] {
        output += &fixture.run(args).run().await?.expect(0)?.to_string();
    }
    for token in [&first, &value, &test_cluster::User::admin().token] {
        let secret = token.split_once(':').map_or(token.as_str(), |(_, key)| key);
        assert!(!output.contains(secret), "a token is in the output");
    }
    assert!(
        output.contains("/v3/tokens") && output.contains("<masked>"),
        "nothing was logged"
    );
    Ok(())
}
