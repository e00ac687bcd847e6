//! The roles in `docs/rbac/bootstrap-token.yaml` are what `server-token rotate` needs.

use anyhow::{Result, ensure};
use e2e::{Roles, succeeds};

use crate::rotation_fixture::RotationFixture;

const USER: &str = "server-token-rights";
/// The rules for pods.
const VIA_POD: &str = "with `--via pod`";

#[tokio::test(flavor = "multi_thread")]
async fn rotate_works_with_the_required_roles_and_names_each_that_is_missing() -> Result<()> {
    let fixture = RotationFixture::start_three("rights", ["nowhere"; 3]).await?;
    let shell = fixture.shell();
    let words = [
        ("USER", USER),
        ("DELIVERY_NAMESPACE", "default"),
        ("DELIVERY_SECRET", "join"),
        ("kubectl-bootstrap-token-", "kubectl-server-token-"),
    ];
    let roles = Roles::read("bootstrap-token", &words)?.labelled(&["access: server-token", "need: required"]);
    let roles = roles.not_for(&[VIA_POD]);
    roles.apply(shell, &[]).await?;
    let run = async |verb: &str, more: &[&str]| {
        let more: Vec<&str> = more.iter().copied().chain(["--as", USER]).collect();
        fixture.run(verb, &more).await
    };
    let plan = async || run("rotate", &["--dry-run"]).await;
    succeeds(plan).await?;
    roles
        .are_needed(("server-token rotate", &[]), (shell, &[]), plan)
        .await?;
    ensure!(fixture.puts().await? == 0, "a PUT was sent");

    // The last rule is there again a moment later.
    succeeds(plan).await?;
    run("rotate", &["--only", "s2"]).await?.expect(4)?;
    run("rollback", &[]).await?.expect(0)?;
    fixture.is_restored().await?;
    run("rotate", &[]).await?.expect(0)?;
    fixture.is_rotated().await
}
