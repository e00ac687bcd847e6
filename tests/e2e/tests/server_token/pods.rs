//! `--via pod`: what pods do on nodes, what is left of them, and what is reported where they cannot run.

use anyhow::{Result, ensure};
use e2e::{CommandOutput, Roles, Running, run_until, succeeds, until};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::TOKEN;
use crate::leaks::hides;
use crate::rotation_fixture::RotationFixture;

/// The flags of this way.
const VIA_POD: [&str; 2] = ["--via", "pod"];
const THREE: [&str; 3] = ["s1", "s2", "s3"];
const USER: &str = "server-token-pods";
/// One read of each server before the rotation. For each: the token is removed, which is verified; it is read before the round and
/// after it, and before its restart and after it; it is restarted; and the backup of its configuration is deleted.
const PODS_OF_ONE_SERVER: usize = 1 + 2 + 2 + 2 + 1 + 1;

/// A command by pods, which ends before it has changed anything and leaves nothing.
async fn refused(fixture: &RotationFixture, more: &[&str]) -> Result<CommandOutput> {
    let more: Vec<&str> = [&VIA_POD[..], &["--node-timeout", "1s"], more].concat();
    let output = fixture.run_by_hand("rotate", &more).await?.expect(1)?;
    ensure!(fixture.puts().await? == 0, "a PUT was sent");
    let left = fixture.of_pods().await?;
    ensure!(left.is_empty(), "left: {left}\n{output}");
    Ok(output)
}

/// The next pod of a server starts so late.
async fn late(fixture: &RotationFixture, server: &str, seconds: f64) -> Result<()> {
    let fault = json!({ "podDelay": seconds });
    fixture.servers.cluster.faults(server, &fault).await
}

async fn until_a_pod_exists(fixture: &RotationFixture) -> Result<()> {
    let exists = async || Ok(fixture.of_pods().await?.contains("pod/").then_some(()));
    until("a pod", exists).await
}

/// Starts `rotate` by pods, and returns once every server has the new token in its files.
async fn placed(fixture: &RotationFixture) -> Result<Running> {
    let running = fixture.spawn(fixture.shell(), &VIA_POD).await?;
    until("the round", async || Ok((fixture.puts().await? >= 3).then_some(()))).await?;
    Ok(running)
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
    ensure!(output.stderr.contains("no kubelet has accepted it"), "{output}");
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

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_fail_are_interrupted_or_are_left_behind_change_nothing_and_are_deleted() -> Result<()> {
    let fixture = RotationFixture::start_with_pods("pods-fail", ["config"; 3]).await?;
    let cluster = &fixture.servers.cluster;
    let none = json!({ "podWaits": null, "podEvicted": false });
    for (fault, reason) in [
        (
            json!({ "podWaits": "ImagePullBackOff" }),
            "does not start: ImagePullBackOff",
        ),
        (json!({ "podEvicted": true }), "Evicted"),
    ] {
        cluster.faults("s2", &fault).await?;
        let output = refused(&fixture, &[]).await?;
        ensure!(output.stderr.contains(reason), "{reason:?} is missing:\n{output}");
        cluster.faults("s2", &none).await?;
    }

    let page = fixture
        .shell()
        .bootstrap_token(["server-token", "status", "--via", "pod"]);
    let page = page.run().await?.expect(0)?;
    ensure!(page.stdout.matches("config.yaml").count() == 3, "{page}");
    let left = fixture.of_pods().await?;
    ensure!(left.is_empty(), "left by status: {left}");

    late(&fixture, "s2", 60.0).await?;
    let interrupted = fixture.spawn(fixture.shell(), &VIA_POD).await?;
    until_a_pod_exists(&fixture).await?;
    interrupted.signal(Signal::INT)?;
    let interrupted = interrupted.finish().await?.expect(130)?;
    ensure!(interrupted.took.as_secs() < 50, "it has waited for the pod");
    let left = fixture.of_pods().await?;
    ensure!(left.is_empty(), "left by an interrupt: {left}");

    // A process that is killed leaves them. Another one may use them until their lifetime is over.
    let killed = fixture.spawn(fixture.shell(), &VIA_POD).await?;
    until_a_pod_exists(&fixture).await?;
    killed.signal(Signal::KILL)?;
    killed.finish().await?.expect_killed()?;
    late(&fixture, "s2", 0.0).await?;
    let plan = async || {
        let more: Vec<&str> = [&VIA_POD[..], &["--dry-run"]].concat();
        fixture.run_by_hand("rotate", &more).await?.expect(0)
    };
    plan().await?;
    let left = fixture.of_pods().await?;
    ensure!(left.contains("pod/") && left.contains("secret/"), "not left: {left}");
    for object in left.lines() {
        let over = "kubectl-rotation/lifetime-seconds=-1";
        let annotate = ["-n", "kube-system", "annotate", "--overwrite", object, over];
        fixture.shell().kubectl(annotate).run().await?.expect(0)?;
    }
    plan().await?;
    let left = fixture.of_pods().await?;
    ensure!(left.is_empty(), "left by a killed process: {left}");
    ensure!(fixture.puts().await? == 0, "a PUT was sent");
    Ok(())
}

/// With the documented roles, and a pod that takes longer to start than an ordinary observation may take.
#[tokio::test(flavor = "multi_thread")]
async fn rotate_needs_the_required_roles_few_pods_and_no_token_in_them() -> Result<()> {
    let fixture = RotationFixture::start_with_pods("pods-rotate", ["config"; 3]).await?;
    let (cluster, shell) = (&fixture.servers.cluster, fixture.shell());
    let words = [
        ("USER", USER),
        ("DELIVERY_NAMESPACE", "default"),
        ("DELIVERY_SECRET", "join"),
        ("kubectl-bootstrap-token-", "kubectl-server-token-pods-"),
    ];
    let roles = Roles::read("bootstrap-token", &words)?.labelled(&["access: server-token", "need: required"]);
    roles.not_for(&["with `--via pod`"]).apply(shell, &[]).await?;
    let plan = async || {
        let more: Vec<&str> = [&VIA_POD[..], &["--dry-run", "--as", USER]].concat();
        fixture.run_by_hand("rotate", &more).await
    };
    let names_the_right = |output: &CommandOutput| {
        output.code() == Some(1) && output.stderr.contains("create pods in namespace kube-system")
    };
    run_until(plan, names_the_right).await?;
    let left = fixture.of_pods().await?;
    ensure!(left.is_empty(), "something was created: {left}");
    roles.apply(shell, &[]).await?;
    succeeds(plan).await?;
    let count = || -> Result<usize> {
        let mut count = 0;
        for server in THREE {
            count += cluster.pods(server)?.len();
        }
        Ok(count)
    };
    let before = count()?;

    // The round takes some seconds. The next pod of a server is that of the observation after it.
    for server in THREE {
        cluster.faults(server, &json!({ "delay": 2.0 })).await?;
    }
    let more: Vec<&str> = [&VIA_POD[..], &["--as", USER, "-v=9"]].concat();
    let running = fixture.spawn(shell, &more).await?;
    until("the first PUT", async || Ok((fixture.puts().await? > 0).then_some(()))).await?;
    let started = cluster.pods("s3")?.len();
    late(&fixture, "s3", 20.0).await?;
    let is_next = async || Ok((cluster.pods("s3")?.len() > started).then_some(()));
    until("a late pod", is_next).await?;
    late(&fixture, "s3", 0.0).await?;
    let done = running.finish().await?.expect(0)?;
    let pods = count()? - before;
    ensure!(pods <= 3 * PODS_OF_ONE_SERVER, "{pods} pods\n{done}");

    let tokens = [TOKEN.to_owned(), fixture.new_token()?];
    hides("the output", &done.to_string(), &tokens)?;
    for server in THREE {
        for (name, object, log) in cluster.pods(server)? {
            hides(&name, &object.to_string(), &tokens)?;
            hides(&name, &log, &tokens)?;
            ensure!(log.contains(" =end"), "{name} has no result: {log}");
        }
    }
    fixture.is_rotated().await
}

#[rstest]
#[case::resumed("rotate")]
#[case::rolled_back("rollback")]
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_killed_while_a_pod_runs_deletes_it_and_ends(#[case] verb: &str) -> Result<()> {
    let fixture = RotationFixture::start_with_pods(&format!("pods-killed-{verb}"), ["config"; 3]).await?;
    let running = placed(&fixture).await?;
    for server in THREE {
        late(&fixture, server, 60.0).await?;
    }
    // It has not started, so it is not deleted in this moment.
    let pending = [
        "-n",
        "kube-system",
        "get",
        "pods",
        "--field-selector=status.phase=Pending",
        "-o",
        "name",
    ];
    until("a pod that is late", async || {
        let pods = fixture.shell().kubectl(pending).run().await?.expect(0)?;
        Ok(pods.stdout.contains("pod/").then_some(()))
    })
    .await?;
    running.signal(Signal::KILL)?;
    running.finish().await?.expect_killed()?;
    let left = fixture.of_pods().await?;
    ensure!(left.contains("pod/"), "no pod was left: {left}");
    for server in THREE {
        late(&fixture, server, 0.0).await?;
    }
    fixture.run_by_hand(verb, &VIA_POD).await?.expect(0)?;
    match verb {
        "rotate" => fixture.is_rotated().await,
        _ => fixture.is_restored().await,
    }
}
