//! What is depended on: licences, sources, duplicate versions and advisories, as `deny.toml` says.

use std::process::Stdio;

use anyhow::Result;

use crate::cargo::cargo;
use crate::step::Steps;

/// Runs cargo-deny, where it is installed.
pub(crate) fn check(steps: &Steps) -> Result<()> {
    if !succeeds(&["deny", "--version"]) {
        steps.skip(
            "dependencies",
            "cargo-deny is not installed (cargo install --locked cargo-deny)",
        );
        return Ok(());
    }
    steps.run(
        "dependencies",
        &mut cargo(["deny", "check", "bans", "licenses", "sources"]),
    )?;
    if succeeds(&["deny", "fetch", "db"]) {
        steps.run(
            "advisories",
            &mut cargo(["deny", "check", "--disable-fetch", "advisories"]),
        )
    } else {
        steps.skip("advisories", "the advisory database cannot be fetched");
        Ok(())
    }
}

fn succeeds(arguments: &[&str]) -> bool {
    let mut command = cargo(arguments.iter().copied());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
