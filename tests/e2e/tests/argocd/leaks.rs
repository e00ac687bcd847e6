//! No output, at any verbosity, shows a token.

use anyhow::Result;

use crate::bench::{Bench, token};

#[tokio::test(flavor = "multi_thread")]
async fn no_verb_shows_a_token_at_any_verbosity() -> Result<()> {
    let bench = Bench::begin("davos").await?;
    let id = bench.id();
    let mut said = bench.run(&["add", id, "-v=9"]).run().await?.expect(0)?.to_string();
    let value = token(&bench.secret().await?)?;
    for args in [
        &["list", "--probe", "-o", "yaml", "-v=9"][..],
        &["list", "--probe", "-o", "wide", "-v=9"],
        &["verify", id, "-o", "json", "-v=9"],
        &["add", id, "-v=9"],
        &["remove", id, "--dry-run", "-v=9"],
        &["remove", id, "--yes", "-v=9"],
    ] {
        said += &bench.run(args).run().await?.expect(0)?.to_string();
    }
    let key = value.split_once(':').map_or(value.as_str(), |(_, key)| key);
    let admin = testbed::User::admin().token;
    let admin = admin.split_once(':').map_or(admin.as_str(), |(_, key)| key);
    for secret in [key, admin] {
        assert!(!said.contains(secret), "a token is in the output");
    }
    assert!(
        said.contains("/v3/tokens") && said.contains("<masked>"),
        "nothing was logged"
    );
    Ok(())
}
