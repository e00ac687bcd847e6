//! What `kubectl crt rotate` refuses. A refused command writes nothing.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, Shell, mask_output, printed_commands, succeeds, until};
use insta::{allow_duplicates, assert_snapshot};
use kube::api::{Patch, PatchParams};
use rstest::rstest;
use serde_json::{Value, json};
use test_cluster::{FaultProxy, Kubeconfig, Registered, Registration, TestEnvironment, TokenStorage, Upstream, User};

use crate::manual_changes::{DEPLOYMENT, deployments};
use crate::state::{self, Scope, State};

/// Runs `kubectl crt` in this shell, through a proxy that must not see a write. Returns the masked output.
pub(crate) async fn refused(fixture: &RancherFixture, shell: &Shell, args: &[&str]) -> Result<String> {
    let proxy = FaultProxy::start([fixture.rancher.upstream(), Upstream::admin_of(fixture.management)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(shell.kubeconfig())?);
    let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    let outcome = shell.crt(args).run().await?;
    ensure!(proxy.writes().is_empty(), "{outcome}\n{}", proxy.transcript());
    ensure!(outcome.stdout.is_empty(), "{outcome}");
    Ok(mask_output(&outcome.to_string()))
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_an_unknown_or_ambiguous_name(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "marseille").await?;
    let twins = Registration::imported("toulouse").quick();
    tokio::try_join!(fixture.rancher.register_as(&twins), fixture.rancher.register_as(&twins))?;

    let unknown = refused(&fixture, &fixture.shell, &["rotate", "marsaille", "--yes"]).await?;
    let ambiguous = refused(&fixture, &fixture.shell, &["rotate", "toulouse", "--yes"]).await?;
    allow_duplicates! { assert_snapshot!(format!("{unknown}\n{ambiguous}"), @r#"
    $ kubectl-crt rotate marsaille --yes
    ----- stderr -----
    error: cluster "marsaille" not found
    hint: did you mean "marseille"?
    ----- exit status: 1 -----
    $ kubectl-crt rotate toulouse --yes
    ----- stderr -----
    error: 2 clusters have the name "toulouse": c-id123 (toulouse), c-id123 (toulouse)
    hint: use the id of the cluster
    ----- exit status: 2 -----
    "#) }
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_the_local_cluster(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let mut local = Registration::imported("local").kind("local");
    local.id = Some("local".to_owned());
    // Another test may have registered it. A Rancher has only one.
    let _ = fixture.rancher.register_as(&local).await;
    let refusal = refused(&fixture, &fixture.shell, &["rotate", "local", "--yes"]).await?;
    allow_duplicates! { assert_snapshot!(refusal, @r"
    $ kubectl-crt rotate local --yes
    ----- stderr -----
    error: cannot rotate cluster local: it is the cluster that Rancher runs in, and has no agent
    hint: no agent uses its registration tokens; on Harvester, nodes join with default-token
    ----- exit status: 1 -----
    ") }
    Ok(())
}

/// Rancher has such clusters up to 2.11.
#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_a_cluster_of_rke1_unless_forced() -> Result<()> {
    let registration = Registration::imported("my-rke1").quick().kind("rke1");
    let fixture = RancherFixture::begin_with(TokenStorage::Status, &registration).await?;
    let id = fixture.cluster.id.as_str();
    let refusal = refused(&fixture, &fixture.shell, &["rotate", id, "--yes"]).await?;
    assert_snapshot!(refusal.replace(id, "c-id123"), @r"
    $ kubectl-crt rotate c-id123 --yes
    ----- stderr -----
    error: cannot rotate cluster my-rke1 (c-id123): it is a cluster of RKE1, for which nothing was measured
    hint: Rancher has no such clusters since 2.12; a custom cluster of RKE2 or K3s takes its place
    hint: --force=unmeasured overrides this check
    ----- exit status: 1 -----
    ");
    let start = State::of(&fixture).await?;
    let forced = ["rotate", id, "--yes", "--settle", "0s", "--force=unmeasured"];
    fixture.shell.crt(forced).run().await?.expect(0)?;
    state::rotated(&fixture, &start, Scope::All).await?;
    Ok(())
}

/// On Rancher's side it is like any imported cluster. What its setting has is named, and left alone.
#[tokio::test(flavor = "multi_thread")]
async fn rotate_explains_what_a_harvester_keeps() -> Result<()> {
    let registration = Registration::imported("my-harvester").quick().kind("harvester");
    let fixture = RancherFixture::begin_with(TokenStorage::Secret, &registration).await?;
    let (start, id) = (State::of(&fixture).await?, fixture.cluster.id.as_str());
    let rotate = ["rotate", id, "--yes", "--settle", "0s"];
    let plan = async || -> Result<String> {
        let plan = fixture.shell.crt(["rotate", id, "--dry-run"]).run().await?.expect(0)?;
        Ok(plan.stdout)
    };
    ensure!(
        !plan().await?.contains("cluster-registration-url"),
        "there is no such setting yet"
    );

    let kind = "settings.harvesterhci.io";
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": kind },
        "spec": {
            "group": "harvesterhci.io", "scope": "Cluster",
            "names": { "kind": "Setting", "plural": "settings", "singular": "setting" },
            "versions": [{ "name": "v1beta1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            } } }],
        },
    });
    let default = fixture.rancher.token_values(&fixture.cluster).await?["default-token"].clone();
    let url = format!("{}/v3/import/{default}_{id}.yaml", fixture.rancher.url());
    let setting = json!({
        "apiVersion": "harvesterhci.io/v1beta1", "kind": "Setting", "metadata": { "name": "cluster-registration-url" },
        "value": json!({ "url": url, "insecureSkipTLSVerify": true }).to_string(),
    });
    let apply = async |object: &Value| {
        let apply = ["--context", id, "apply", "-f", "-"];
        let apply = fixture.shell.kubectl(apply).stdin(object.to_string());
        anyhow::Ok(apply.run().await?.code() == Some(0))
    };
    // The API server serves a new kind a moment later.
    until("the definition", async || Ok(apply(&definition).await?.then_some(()))).await?;
    until("the setting", async || Ok(apply(&setting).await?.then_some(()))).await?;

    let names = format!(
        "{} (Harvester's setting cluster-registration-url): it has an import URL with this value.",
        start.tokens["default-token"]
    );
    let planned = plan().await?;
    ensure!(planned.contains(&names) && !planned.contains(&default), "{planned}");
    let done = fixture.shell.crt(rotate).run().await?.expect(0)?;
    ensure!(done.stderr.contains(&names), "{done}");
    state::rotated(&fixture, &start, Scope::All).await?;
    // The next one does not revoke what is in there now.
    let other = plan().await?;
    ensure!(other.contains("which this rotation does not revoke"), "{other}");
    Ok(())
}

async fn shell_of(fixture: &RancherFixture, cluster: &Registered, user: &User) -> Result<Shell> {
    let kubeconfig = fixture.rancher.kubeconfig_of(user);
    let kubeconfig = fixture.rancher.with_cluster(kubeconfig, cluster, user);
    Shell::new(TestEnvironment::shared().await?, &kubeconfig)
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_an_unreachable_cluster(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let id = fixture.cluster.id.as_str();
    let no_route = refused(
        &fixture,
        &fixture.shell,
        &["rotate", id, "--yes", "--context", "management"],
    )
    .await?;
    let unknown = User {
        token: "token-gone:vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x8xk2".to_owned(),
        ..User::viewer()
    };
    let shell = shell_of(&fixture, &fixture.cluster, &unknown).await?;
    let unknown_user = refused(&fixture, &shell, &["rotate", id, "--yes"]).await?;
    allow_duplicates! { assert_snapshot!(format!("{no_route}\n{unknown_user}"), @r"
    $ kubectl-crt rotate c-id123 --yes --context management
    ----- stderr -----
    error: cannot reach downstream cluster c-id123: --context is not a context of Rancher, and there is no other route
    hint: pass a context of cluster c-id123 with --downstream-context
    hint: pass a context of Rancher (…/k8s/clusters/local) with --context
    ----- exit status: 1 -----
    $ kubectl-crt rotate c-id123 --yes
    ----- stderr -----
    error: cannot read Cluster c-id123 on the management cluster: You must be logged in to the server (Unauthorized)
    ----- exit status: 1 -----
    ") }
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_without_a_terminal_requires_yes(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let refusal = refused(&fixture, &fixture.shell, &["rotate", &fixture.cluster.id]).await?;
    let sentence = refusal
        .lines()
        .filter(|line| line.starts_with("error") || line.starts_with("hint"));
    let end = refusal.lines().last().unwrap_or_default();
    let sentence = sentence.chain([end]).collect::<Vec<_>>().join("\n");
    allow_duplicates! { assert_snapshot!(sentence, @r"
    error: this changes credentials, and there is no terminal to confirm it on
    hint: pass --yes to continue, or --dry-run to print the plan
    ----- exit status: 1 -----
    ") }
    // The plan is printed before the refusal.
    assert!(
        refusal.contains("set a new value on registration token \"system\""),
        "{refusal}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_and_rollback_reject_invalid_arguments() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "oslo").await?;
    let id = fixture.cluster.id.as_str();
    let mut all = String::new();
    for args in [
        vec!["rotate"],
        vec!["rotate", id, "--all"],
        vec!["rotate", id, "--timeout", "20m"],
        vec!["rotate", id, "--settle", "soon"],
        vec!["rotate", id, "--force=everything"],
        vec!["rotate", id, "--dry-run=maybe"],
        vec!["rotate", id, "-o", "wide"],
        vec!["rollback", id, "--only-agent"],
    ] {
        let refusal = refused(&fixture, &fixture.shell, &args).await?;
        ensure!(refusal.ends_with("exit status: 2 -----"), "{refusal}");
        // The error comes before the usage.
        let what = refusal
            .lines()
            .skip_while(|line| !line.starts_with("error"))
            .take_while(|line| !line.is_empty() && !line.starts_with("-----"));
        writeln!(all, "$ {}\n{}", args.join(" "), what.collect::<Vec<_>>().join("\n"))?;
    }
    assert_snapshot!(mask_output(&all), @r#"
    $ rotate
    error: the following required arguments were not provided:
      <CLUSTER|--selector <SELECTOR>|--all>
    $ rotate c-id123 --all
    error: the argument '[CLUSTER]...' cannot be used with '--all'
    $ rotate c-id123 --timeout 20m
    error: invalid value '20m' for '--timeout <DURATION>': at most 15m0s: a rollout is held for twenty minutes, which must include the time for a rollback
    $ rotate c-id123 --settle soon
    error: invalid value 'soon' for '--settle <DURATION>': invalid duration "soon": write seconds (90) or units as in <age>m, <n>, 7d, 2w
    $ rotate c-id123 --force=everything
    error: invalid value 'everything' for '--force <CHECK>'
      [possible values: agent, redeploy, last-agent, third-token, context, owner, address, machine, weak-proof, unmeasured, lock, journal]
    $ rotate c-id123 --dry-run=maybe
    error: invalid value 'maybe' for '--dry-run[=<MODE>]'
      [possible values: none, client, server]
    $ rotate c-id123 -o wide
    error: the result is printed as text, json, yaml, name, jsonpath or custom-columns
    $ rollback c-id123 --only-agent
    error: unexpected argument '--only-agent' found
    "#);
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_a_disconnected_agent(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let id = fixture.cluster.id.as_str();
    fixture
        .rancher
        .offline(&fixture.cluster, Duration::from_mins(10))
        .await?;
    until("Rancher to report the agent as not connected", async || {
        let report = fixture.rancher.report(&fixture.cluster).await?;
        Ok((report.conditions["Connected"] == "False").then_some(()))
    })
    .await?;
    let direct = format!("{id}-direct");
    let by_context = refused(
        &fixture,
        &fixture.shell,
        &["rotate", id, "--yes", "--downstream-context", &direct],
    )
    .await?;
    let derived = refused(&fixture, &fixture.shell, &["rotate", id, "--yes"]).await?;
    // The commands of the hints work as they are printed.
    for (hint, flag) in [(&by_context, "--downstream-context"), (&derived, "status")] {
        let commands = printed_commands(hint);
        let command = commands.first().context("no command")?.replace("c-id123", id);
        ensure!(command.contains(flag), "{command}");
        fixture.shell.printed(&command, &[]).run().await?.expect(0)?;
    }
    // Several reads run in parallel, and any of them may fail first.
    let (before, after) = derived.split_once("cannot ").context("no failed read")?;
    let (_, after) = after.split_once(" on the downstream cluster").context("on no side")?;
    let derived = format!("{before}cannot … on the downstream cluster{after}");
    allow_duplicates! { assert_snapshot!(format!("{by_context}\n{derived}"), @r"
    $ kubectl-crt rotate c-id123 --yes --downstream-context c-id123-direct
    ----- stderr -----
    error: cannot rotate cluster oslo (c-id123): Rancher reports its agent as not connected
    hint: `kubectl crt status c-id123 --downstream-context c-id123-direct` shows what fails; `kubectl crt rescue c-id123 --downstream-context c-id123-direct` brings back an agent that has lost its token
    hint: --force=agent overrides this check
    ----- exit status: 1 -----
    $ kubectl-crt rotate c-id123 --yes
    ----- stderr -----
    Error from server: cannot … on the downstream cluster: the server responded with 500 Internal Server Error
    hint: Rancher reaches the cluster through its agent, whose tunnel may be down: see `kubectl crt status c-id123`
    hint: `kubectl crt rescue c-id123` brings back an agent that has lost its token
    hint: pass a context that does not go through the agent with --downstream-context
    ----- exit status: 1 -----
    ") }
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_a_held_rollout_without_a_rotation(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let id = fixture.cluster.id.as_str();
    let patch = r#"{"spec":{"minReadySeconds":1200,"progressDeadlineSeconds":3600}}"#;
    let patch = [
        "--context",
        id,
        "-n",
        "cattle-system",
        "patch",
        "deployment",
        "cattle-cluster-agent",
        "-p",
        patch,
    ];
    fixture.shell.kubectl(patch).run().await?.expect(0)?;
    until("the pods to count as not available", async || {
        let available = [
            "--context",
            id,
            "-n",
            "cattle-system",
            "get",
            "deployment",
            "cattle-cluster-agent",
        ];
        let available = available.iter().chain(&["-o", "jsonpath={.status.availableReplicas}"]);
        let status = fixture.shell.kubectl(available).run().await?.expect(0)?;
        Ok(matches!(status.stdout.as_str(), "" | "0").then_some(()))
    })
    .await?;
    let refusal = refused(&fixture, &fixture.shell, &["rotate", id, "--yes"]).await?;
    allow_duplicates! { assert_snapshot!(refusal, @r"
    $ kubectl-crt rotate c-id123 --yes
    ----- stderr -----
    error: cannot rotate cluster oslo (c-id123): the rollout of the agent is held (minReadySeconds 1200) without a rotation in progress: an earlier run has left it behind
    hint: wait up to twenty minutes until it completes; with --force=agent the rotation starts from here and releases it at its end
    hint: --force=agent overrides this check
    ----- exit status: 1 -----
    ") }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_names_the_command_that_resumes_a_paused_deployment() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "oslo").await?;
    let id = fixture.cluster.id.as_str();
    let direct = format!("{id}-direct");
    let pause = ["--context", &direct, "-n", "cattle-system", "rollout", "pause"];
    let pause = pause.iter().chain(&["deployment/cattle-cluster-agent"]);
    fixture.shell.kubectl(pause).run().await?.expect(0)?;
    let rotate = ["rotate", id, "--downstream-context", &direct, "--dry-run"];
    let refused = fixture.shell.crt(rotate).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("Deployment is paused"), "{refused}");
    let resume = "kubectl -n cattle-system rollout resume";
    fixture.shell.follow(&refused, resume, &[]).await?.expect(0)?;
    // The rollout is complete once its controller has seen that.
    succeeds(async || fixture.shell.crt(rotate).run().await).await
}

/// `kubectl get -o yaml | kubectl apply -f -` writes every field into the annotation that Rancher's own apply starts from.
#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_a_deployment_applied_with_rollout_settings() -> Result<()> {
    const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let fixture = RancherFixture::begin(TokenStorage::Secret, "oslo").await?;
    let id = fixture.cluster.id.as_str();
    let deployments = deployments(&fixture).await?;
    let agent = deployments.get(DEPLOYMENT).await?;
    let last = agent.metadata.annotations.unwrap_or_default();
    let mut last: Value = serde_json::from_str(last.get(LAST_APPLIED).context("never applied")?)?;
    last["spec"]["progressDeadlineSeconds"] = json!(600);
    let annotation = json!({ "metadata": { "annotations": { LAST_APPLIED: last.to_string() } } });
    let annotation = Patch::Merge(&annotation);
    deployments
        .patch(DEPLOYMENT, &PatchParams::default(), &annotation)
        .await?;
    let refusal = refused(&fixture, &fixture.shell, &["rotate", id, "--yes"]).await?;
    assert_snapshot!(refusal, @r"
    $ kubectl-crt rotate c-id123 --yes
    ----- stderr -----
    error: cannot rotate cluster oslo (c-id123): the agent's Deployment was applied by hand with progressDeadlineSeconds or minReadySeconds, so Rancher cannot apply the new token while the rollout is held
    hint: annotate the cluster with io.cattle.agent.force.deploy=true, so that Rancher redeploys the agent and no longer keeps these fields
    ----- exit status: 1 -----
    ");
    // As the hint says.
    fixture.rancher.redeploy(&fixture.cluster).await?;
    fixture
        .shell
        .crt(["rotate", id, "--yes", "--settle", "1s"])
        .run()
        .await?
        .expect(0)
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_mixed_token_storage() -> Result<()> {
    let fixture = RancherFixture::begin_apart(TokenStorage::Secret, "split").await?;
    let id = fixture.cluster.id.as_str();
    // Rancher's migration stops halfway.
    fixture.rancher.fault(&json!({ "leaderGap": "10m" })).await?;
    let unmigrated = r#"{"status":{"tokenSecretName":null}}"#;
    let token = [
        "clusterregistrationtokens.management.cattle.io",
        "default-token",
        "-n",
        id,
    ];
    let patch = ["--context", "management", "patch", "--type", "merge", "-p", unmigrated];
    fixture
        .shell
        .kubectl(patch.iter().chain(&token))
        .run()
        .await?
        .expect(0)?;
    let refusal = refused(&fixture, &fixture.shell, &["rotate", id, "--yes"]).await?;
    assert_snapshot!(refusal, @r"
    $ kubectl-crt rotate c-id123 --yes
    ----- stderr -----
    error: Rancher keeps registration tokens both in Secrets and in the status of the tokens (without a Secret: c-id123/default-token): its migration is not finished, or it was downgraded
    hint: finish Rancher's migration of registration tokens first
    hint: after a downgrade, delete what the newer Rancher has left: the feature crt-token-ttl-rotation, and the Secrets that `kubectl crt status c-id123` names
    ----- exit status: 1 -----
    ");
    let status = fixture.shell.crt(["status", id]).run().await?.expect(0)?;
    let named = "downgraded; no token names these Secrets: crt-token-default-token";
    ensure!(
        status.stdout.contains("! storage") && status.stdout.contains(named),
        "{status}"
    );
    let list = fixture.shell.crt(["list", id, "-o", "wide"]).run().await?.expect(0)?;
    ensure!(list.stdout.contains("or Rancher was downgraded"), "{list}");
    Ok(())
}
