//! `snapshots` and `snapshots restore-plan`.

use anyhow::{Result, ensure};
use e2e::{CommandOutput, Roles, run_until};
use serde_json::Value;

use crate::cluster::{OTHER, file};
use crate::rotation_fixture::RotationFixture;

/// The tokens of the snapshots of a cluster that was rotated once: those that no given token restores come first.
pub(crate) async fn each_snapshot_shows_its_token(fixture: &RotationFixture) -> Result<()> {
    let shell = fixture.shell();
    let snapshots = async |more: &[&str]| -> Result<CommandOutput> {
        let words = ["snapshots"].iter().chain(more).copied();
        shell.bootstrap_token(words).run().await
    };
    let needs = async |more: &[&str]| -> Result<Vec<String>> {
        let more: Vec<&str> = more.iter().copied().chain(["-o", "json"]).collect();
        let output = snapshots(&more).await?.expect(0)?;
        let list: Value = serde_json::from_str(&output.stdout)?;
        let rows = list["items"].as_array().cloned().unwrap_or_default();
        Ok(rows
            .iter()
            .map(|row| format!("{} {}", row["needs"].as_str().unwrap_or_default(), row["uncertain"]))
            .collect())
    };
    let rows = |first, second| [[first; 3], [second; 3]].concat();
    ensure!(needs(&[]).await? == rows("previous false", "current false"));
    let (old, new) = (fixture.old_file(), fixture.new_file());
    ensure!(needs(&["--token-file", new]).await? == rows("previous false", "given false"));
    ensure!(needs(&["--token-file", old]).await? == rows("current false", "given false"));

    let table = snapshots(&["--token-file", old, "--token-file", new])
        .await?
        .expect(0)?;
    fixture.prints_no_token(&table)?;
    for (file, count) in [(old, 3), (new, 3), ("ready", 6)] {
        ensure!(table.stdout.matches(file).count() == count, "{table}");
    }
    let other = file(shell, "other", OTHER, 0o600)?;
    ensure!(needs(&["--token-file", &other]).await? == rows("previous false", "current false"));

    let list: Value = serde_json::from_str(&snapshots(&["-o", "json"]).await?.expect(0)?.stdout)?;
    let name = list["items"][0]["name"].as_str().unwrap_or_default();
    let plan = snapshots(&["restore-plan", name, "--token-file", old])
        .await?
        .expect(0)?;
    fixture.prints_no_token(&plan)?;
    let steps = [
        "--cluster-reset-restore-path=",
        "cred/passwd",
        "condition=EtcdIsVoter",
        old,
    ];
    for step in steps {
        ensure!(plan.stdout.contains(step), "{step:?} is missing:\n{plan}");
    }
    let unknown = snapshots(&["restore-plan", "daily"]).await?.expect(1)?;
    ensure!(unknown.stderr.contains("snapshot \"daily\" not found"), "{unknown}");
    the_roles_are_what_it_needs(fixture).await
}

async fn the_roles_are_what_it_needs(fixture: &RotationFixture) -> Result<()> {
    let user = "snapshot-reader";
    let list = async || fixture.shell().bootstrap_token(["snapshots", "--as", user]).run().await;
    list().await?.expect(1)?;
    let roles = Roles::read("bootstrap-token", &[("USER", user)])?.labelled(&["access: read"]);
    roles.apply(fixture.shell(), &[]).await?;
    run_until(list, |output| {
        output.code() == Some(0) && !output.stderr.contains("no permission")
    })
    .await
}
