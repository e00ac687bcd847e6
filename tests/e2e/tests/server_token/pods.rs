//! `--via pod` where pods cannot run. There is no kubelet.

use anyhow::{Result, ensure};
use e2e::CommandOutput;

use crate::rotation_fixture::RotationFixture;

/// The label of everything of a run.
const LABEL: &str = "kubectl-rotation/run";

/// `rotate --via pod`, which ends before it has changed anything and leaves nothing.
async fn refused(fixture: &RotationFixture, more: &[&str]) -> Result<CommandOutput> {
    let more: Vec<&str> = ["--via", "pod", "--node-timeout", "1s"]
        .iter()
        .chain(more)
        .copied()
        .collect();
    let output = fixture.run_by_hand("rotate", &more).await?.expect(1)?;
    ensure!(fixture.puts().await? == 0, "a PUT was sent");
    let get = ["-n", "kube-system", "get", "pods,secrets", "-l", LABEL, "-o", "name"];
    let left = fixture.shell().kubectl(get).run().await?.expect(0)?.stdout;
    ensure!(left.is_empty(), "left: {left}");
    Ok(output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_run_is_reported_and_deleted() -> Result<()> {
    let fixture = RotationFixture::start_three("pods", ["nowhere"; 3]).await?;
    let output = refused(&fixture, &[]).await?;
    ensure!(
        output.stderr.contains("the node has no image with sh and nsenter"),
        "{output}"
    );
    ensure!(output.stderr.contains("--image"), "the way out is missing:\n{output}");

    // A minute to start, and the limit of the script.
    let output = refused(&fixture, &["--image", "busybox:1.36"]).await?;
    ensure!(
        output.stderr.contains("does not start") || output.stderr.contains("1m1s"),
        "{output}"
    );
    ensure!(output.took.as_secs() < 90, "{:?}\n{output}", output.took);

    let label = [
        "label",
        "namespace",
        "kube-system",
        "pod-security.kubernetes.io/enforce=restricted",
    ];
    fixture.shell().kubectl(label).run().await?.expect(0)?;
    let output = refused(&fixture, &["--image", "busybox:1.36"]).await?;
    ensure!(
        output.stderr.contains("PodSecurity"),
        "the reason is missing:\n{output}"
    );
    ensure!(output.stderr.contains("hint:"), "{output}");
    Ok(())
}
