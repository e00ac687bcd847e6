//! `kubectl crt status`: one page that explains itself, whatever the state of the cluster is.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use e2e::{Outcome, Running, Story, shown, until};
use insta::assert_snapshot;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testbed::{Era, Fault, FaultProxy, Moment, On, Planned};

use crate::hands;
use crate::state::{self, Scope, State};

#[tokio::test(flavor = "multi_thread")]
async fn in_era_p_a_healthy_cluster_is_explained_link_by_link() -> Result<()> {
    let story = Story::begin(Era::Plain, "lyon").await?;
    assert_snapshot!(shown(&story.desk.crt(["status", &story.cluster.id]).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123
    Cluster lyon (c-id123)
    Rancher v2.12.0 keeps registration tokens in their own objects (era plain); the cluster was reached through Rancher

    + cluster   c-id123 is of kind imported; Rancher says that its agent is connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA holds BBBBBBBBBB
    + pods      1 of 1 pods of the agent run
    + token     BBBBBBBBBB is the value of registration token system
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + deployed  Rancher would deploy the same token again
    + address   the agent connects to https://127.0.0.1:<port>, as Rancher's settings say
    + owner     nothing but Rancher manages the agent and its registration token
    + tunnels   the agent that connected last did so with BBBBBBBBBB, and opens its second tunnel with it
    + call      a fresh call through Rancher was answered (Kubernetes <version>)

    No rotation is under way. None was ever finished here.
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_era_s_a_healthy_cluster_is_explained_link_by_link() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let id = story.cluster.id.as_str();
    assert_snapshot!(shown(&story.desk.crt(["status", id]).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123
    Cluster lyon (c-id123)
    Rancher v2.15.0 keeps registration tokens in Secrets (era secret); the cluster was reached through Rancher

    + cluster   c-id123 is of kind imported; Rancher says that its agent is connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA holds BBBBBBBBBB
    + pods      1 of 1 pods of the agent run
    + token     BBBBBBBBBB is the value of registration token system
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + deployed  Rancher would deploy the same token again
    + address   the agent connects to https://127.0.0.1:<port>, as Rancher's settings say
    + owner     nothing but Rancher manages the agent and its registration token
    + tunnels   the agent that connected last did so with BBBBBBBBBB, and opens its second tunnel with it
    + call      a fresh call through Rancher was answered (Kubernetes <version>)

    No rotation is under way. None was ever finished here.
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(shown(&story.desk.crt(["status", id, "-o", "yaml"]).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123 -o yaml
    apiVersion: kubectl-rotation.github.io/v1alpha1
    chain:
    - message: c-id123 is of kind imported; Rancher says that its agent is connected
      name: cluster
      status: good
    - message: Deployment cattle-cluster-agent has 1 of 1 pods available
      name: agent
      status: good
    - message: Secret cattle-credentials-AAAAAAAAAA holds BBBBBBBBBB
      name: secret
      status: good
    - message: 1 of 1 pods of the agent run
      name: pods
      status: good
    - message: BBBBBBBBBB is the value of registration token system
      name: token
      status: good
    - message: Rancher accepts BBBBBBBBBB as a token of cluster c-id123
      name: accepted
      status: good
    - message: Rancher would deploy the same token again
      name: deployed
      status: good
    - message: the agent connects to https://127.0.0.1:<port>, as Rancher's settings say
      name: address
      status: good
    - message: nothing but Rancher manages the agent and its registration token
      name: owner
      status: good
    - message: >-
        the agent that connected last did so with BBBBBBBBBB, and opens its second
        tunnel with it
      name: tunnels
      status: good
    - message: a fresh call through Rancher was answered (Kubernetes <version>)
      name: call
      status: good
    cluster:
      displayName: lyon
      id: c-id123
      kind: imported
    era: secret
    fingerprint: BBBBBBBBBB
    healthy: true
    kind: ClusterStatus
    lastResult: null
    lastRotated: null
    metadata:
      name: c-id123
    path: through Rancher
    rancherVersion: v2.15.0
    rotation: null
    rotationUnknown: false
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(shown(&story.desk.crt(["status", id, "-o", "wide"]).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123 -o wide
    ----- stderr -----
    error: status prints a page, json, yaml, jsonpath or custom-columns
    ----- exit status: 2 -----
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_management_clusters_own_kubeconfig_the_downstream_side_is_a_question_mark() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let id = story.cluster.id.as_str();
    let status = ["status", id, "--context", "management"];
    assert_snapshot!(shown(&story.desk.crt(status).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123 --context management
    Cluster lyon (c-id123)
    Rancher v2.15.0 keeps registration tokens in Secrets (era secret)

    + cluster   c-id123 is of kind imported; Rancher says that its agent is connected
    ? agent     there is no way to the downstream cluster; give one with --downstream-context
    ? secret    there is no way to the downstream cluster; give one with --downstream-context
    ? pods      there is no way to the downstream cluster; give one with --downstream-context
    ? token     the agent's token is not known
    ? accepted  the agent's token is not known
    ? deployed  the agent's token is not known
    ? address   there is no way to the downstream cluster; give one with --downstream-context
    ? owner     what else manages the agent is unknown: the downstream cluster could not be reached
    ? tunnels   there is no way to the downstream cluster; give one with --downstream-context
    - call      a call through Rancher was not tried: --context has no identity that Rancher knows

    No rotation is under way. None was ever finished here.
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    let direct = format!("{id}-direct");
    let status = ["status", id, "--context", "management", "--downstream-context", &direct];
    assert_snapshot!(shown(&story.desk.crt(status).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123 --context management --downstream-context c-id123-direct
    Cluster lyon (c-id123)
    Rancher v2.15.0 keeps registration tokens in Secrets (era secret); the cluster was reached by context c-id123-direct

    + cluster   c-id123 is of kind imported; Rancher says that its agent is connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA holds BBBBBBBBBB
    + pods      1 of 1 pods of the agent run
    + token     BBBBBBBBBB is the value of registration token system
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + deployed  Rancher would deploy the same token again
    + address   the agent connects to https://127.0.0.1:<port>, as Rancher's settings say
    + owner     nothing but Rancher manages the agent and its registration token
    + tunnels   the agent that connected last did so with BBBBBBBBBB, and opens its second tunnel with it
    - call      a call through Rancher was not tried: --context has no identity that Rancher knows

    No rotation is under way. None was ever finished here.
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_at_its_link() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    hands::replace_system(&story, &"x7k2p".repeat(10)).await?;
    assert_snapshot!(shown(&story.desk.crt(["status", &story.cluster.id]).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123
    Cluster lyon (c-id123)
    Rancher v2.15.0 keeps registration tokens in Secrets (era secret); the cluster was reached through Rancher

    + cluster   c-id123 is of kind imported; Rancher says that its agent is connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA holds BBBBBBBBBB
    + pods      1 of 1 pods of the agent run
    x token     BBBBBBBBBB is the value of no registration token of this cluster
    x accepted  Rancher refuses BBBBBBBBBB
    x deployed  Rancher would deploy CCCCCCCCCC, the value of system, at the next redeploy; the agent runs with BBBBBBBBBB
    + address   the agent connects to https://127.0.0.1:<port>, as Rancher's settings say
    + owner     nothing but Rancher manages the agent and its registration token
    + tunnels   the agent that connected last did so with BBBBBBBBBB, and opens its second tunnel with it
    + call      a fresh call through Rancher was answered (Kubernetes <version>)

    No rotation is under way. None was ever finished here.
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    let healthy = story
        .desk
        .crt(["status", &story.cluster.id, "-o", "jsonpath={.healthy}"])
        .run()
        .await?
        .expect(0)?;
    assert_eq!(healthy.stdout, "false");
    Ok(())
}

/// A rotation that stands still: its process is stopped, and its third write on the way to the server.
struct Stopped {
    story: Story,
    start: State,
    process: Running,
    held: Planned,
    proxy: FaultProxy,
}

impl Stopped {
    /// Right before the agent's Deployment is touched.
    async fn at_place(era: Era) -> Result<Self> {
        let story = Story::begin(era, "lyon").await?;
        let start = State::of(&story).await?;
        let (proxy, desk) = story.behind_proxy().await?;
        let deployment = On::write().path("*/deployments/cattle-cluster-agent");
        let held = proxy.plan(deployment, Fault::Stop(Moment::Before));
        let process = desk
            .crt(["rotate", &story.cluster.id, "--yes", "--settle", "1s"])
            .start()
            .await?;
        proxy.victim(process.pid()?);
        if tokio::time::timeout(e2e::PATIENCE, held.strikes()).await.is_err() {
            bail!(
                "it did not come so far:\n{}\n{}",
                process.finish().await?,
                proxy.transcript()
            );
        }
        Ok(Self {
            story,
            start,
            process,
            held,
            proxy,
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.process.pid()?).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("no process")?, signal)?)
    }

    async fn status(&self, args: &[&str]) -> Result<Outcome> {
        let args = ["status", &self.story.cluster.id]
            .into_iter()
            .chain(args.iter().copied());
        self.story.desk.crt(args).run().await?.expect(0)
    }
}

/// What stands on the page behind a label.
fn line<'a>(page: &'a Outcome, label: &str) -> Option<&'a str> {
    let labelled = |line: &'a str| line.strip_prefix("  ")?.strip_prefix(label)?.strip_prefix(' ');
    page.stdout.lines().find_map(labelled).map(str::trim)
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn while_a_rotation_is_under_way_it_says_where_it_stands_and_who_holds_it(#[case] era: Era) -> Result<()> {
    let stopped = Stopped::at_place(era).await?;
    let page = stopped.status(&[]).await?;
    let new = stopped.proxy.writes();
    let drawn = State::of(&stopped.story)
        .await?
        .drawn()
        .context("no new token")?
        .to_owned();
    let (old, pid) = (stopped.start.named(), stopped.process.pid()?);
    assert_eq!(
        line(&page, "goal"),
        Some(&*format!("forward, from {old} to {drawn}")),
        "{page}\n{new:#?}"
    );
    assert_eq!(line(&page, "phase"), Some("place"), "{page}");
    assert_eq!(
        line(&page, "step"),
        Some(&*format!("point the agent at {drawn}, roll-out held")),
        "{page}"
    );
    let holder = line(&page, "held by").context("no holder")?;
    assert!(holder.starts_with(&format!("process {pid} on ")), "{page}");
    let age = holder
        .rsplit_once("renewed ")
        .and_then(|(_, ago)| ago.strip_suffix("s ago"));
    assert!(
        age.is_some_and(|age| age.parse::<u32>().is_ok_and(|age| age < 30)),
        "{page}"
    );
    let id = &stopped.story.cluster.id;
    assert_eq!(
        line(&page, "continue"),
        Some(&*format!("kubectl crt rotate {id}")),
        "{page}"
    );
    assert_eq!(
        line(&page, "undo"),
        Some(&*format!("kubectl crt rollback {id}")),
        "{page}"
    );

    let words = [
        "-o",
        "jsonpath={.rotation.phase} {.rotation.goal} {.rotation.unattended}",
    ];
    assert_eq!(stopped.status(&words).await?.stdout, "place forward false");
    let listed = stopped
        .story
        .desk
        .crt(["list", id, "-o", "jsonpath={.items[-1:].state}"])
        .run()
        .await?;
    assert!(listed.stdout.contains("rotating") || era == Era::Plain, "{listed}");

    stopped.signal(Signal::CONT)?;
    stopped.held.release();
    stopped.process.finish().await?.expect(0)?;
    state::rotated(&stopped.story, &stopped.start, Scope::All).await?;
    let page = stopped.story.desk.crt(["status", id]).run().await?.expect(0)?;
    let last = page.stdout.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("No rotation is under way. The last one ended ") && last.ends_with(": rotated."),
        "{page}"
    );
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_command_that_it_names_goes_on(#[case] era: Era) -> Result<()> {
    let stopped = Stopped::at_place(era).await?;
    stopped.signal(Signal::KILL)?;
    stopped.held.release();
    let Stopped {
        story, start, process, ..
    } = stopped;
    process.finish().await?.expect_killed()?;
    // The write was on the wire still and may land after the kill; the page says what the journal says.
    let page = story.desk.crt(["status", &story.cluster.id]).run().await?.expect(0)?;
    let holder = line(&page, "held by").context("no holder")?;
    assert!(
        holder.starts_with("nobody any more (process ") && holder.ends_with(", has ended)"),
        "{page}"
    );
    assert_eq!(line(&page, "phase"), Some("place"), "{page}");
    let document: Value = serde_json::from_str(
        &story
            .desk
            .crt(["status", &story.cluster.id, "-o", "json"])
            .run()
            .await?
            .expect(0)?
            .stdout,
    )?;
    assert_eq!(document["rotation"]["unattended"], Value::Bool(true), "{document:#}");

    let command = line(&page, "continue").context("no command")?.to_owned();
    let words: Vec<_> = command.split(' ').skip(1).chain(["--yes", "--settle", "1s"]).collect();
    story.desk.kubectl(words).run().await?.expect(0)?;
    state::rotated(&story, &start, Scope::All).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_tunnel_is_gone_is_shown_by_what_the_management_side_tells() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let id = story.cluster.id.as_str();
    story.rancher.offline(&story.cluster, Duration::from_mins(10)).await?;
    until("Rancher to see it", async || {
        let report = story.rancher.report(&story.cluster).await?;
        Ok(report
            .conditions
            .get("Connected")
            .is_some_and(|status| status == "False")
            .then_some(()))
    })
    .await?;
    assert_snapshot!(shown(&story.desk.crt(["status", id]).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123
    Cluster lyon (c-id123)
    Rancher v2.15.0 keeps registration tokens in Secrets (era secret); the cluster was reached through Rancher

    x cluster   c-id123 is of kind imported; Rancher says that its agent is not connected
    ? agent     the cluster's agent has no tunnel to Rancher
    ? secret    which Secret the agent's Deployment names is not known
    ? pods      the cluster's agent has no tunnel to Rancher
    ? token     the agent's token is not known
    ? accepted  the agent's token is not known
    ? deployed  the agent's token is not known
    ? address   the cluster's agent has no tunnel to Rancher
    ? owner     what else manages the agent is unknown: the downstream cluster could not be reached
    ? tunnels   the cluster's agent has no tunnel to Rancher
    x call      a fresh call through Rancher failed: the cluster's agent has no tunnel to Rancher

    No rotation is under way. None was ever finished here.
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    let direct = format!("{id}-direct");
    let status = ["status", id, "--downstream-context", &direct];
    assert_snapshot!(shown(&story.desk.crt(status).run().await?.to_string()), @r"
    $ kubectl-crt status c-id123 --downstream-context c-id123-direct
    Cluster lyon (c-id123)
    Rancher v2.15.0 keeps registration tokens in Secrets (era secret); the cluster was reached by context c-id123-direct

    x cluster   c-id123 is of kind imported; Rancher says that its agent is not connected
    + agent     Deployment cattle-cluster-agent has 1 of 1 pods available
    + secret    Secret cattle-credentials-AAAAAAAAAA holds BBBBBBBBBB
    + pods      1 of 1 pods of the agent run
    + token     BBBBBBBBBB is the value of registration token system
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + deployed  Rancher would deploy the same token again
    + address   the agent connects to https://127.0.0.1:<port>, as Rancher's settings say
    + owner     nothing but Rancher manages the agent and its registration token
    + tunnels   the agent that connected last did so with BBBBBBBBBB, and opens its second tunnel with it
    x call      a fresh call through Rancher failed: the cluster's agent has no tunnel to Rancher

    No rotation is under way. None was ever finished here.
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    Ok(())
}
