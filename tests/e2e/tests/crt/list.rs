//! `kubectl crt list`

use anyhow::Result;
use e2e::{RancherFixture, mask_output, until};
use insta::assert_snapshot;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rstest::rstest;
use serde_json::{Value, json};
use test_cluster::TokenStorage;

use crate::manual_changes;

/// Runs `kubectl-crt ARGS` and returns the masked output.
async fn crt(fixture: &RancherFixture, args: &[&str]) -> Result<String> {
    Ok(mask_output(&fixture.shell.crt(args).run().await?.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn list_infers_token_users_with_status_storage_and_probe_confirms_them() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    assert_snapshot!(crt(&fixture, &["list", id]).await?, @r"
    $ kubectl-crt list c-id123
    CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY         STATE     LAST ROTATED
    lyon      c-id123   default-token   AAAAAAAAAA    <n>   <none>    <none>          current   <never>
    lyon      c-id123   system          BBBBBBBBBB    <n>   <none>    agent?,system   current   <never>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", id, "-o", "wide"]).await?, @r"
    $ kubectl-crt list c-id123 -o wide
    CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY         STATE     LAST ROTATED   PREVIOUS   KIND       STORAGE   MANAGED BY   PROBLEMS
    lyon      c-id123   default-token   AAAAAAAAAA    <n>   <none>    <none>          current   <never>        <none>     imported   status    <none>       <none>
    lyon      c-id123   system          BBBBBBBBBB    <n>   <none>    agent?,system   current   <never>        <none>     imported   status    <none>       <none>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", id, "--probe"]).await?, @r"
    $ kubectl-crt list c-id123 --probe
    CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY        STATE     ACCEPTED   LAST ROTATED
    lyon      c-id123   default-token   AAAAAAAAAA    <n>   <none>    <none>         current   yes        <never>
    lyon      c-id123   system          BBBBBBBBBB    <n>   <none>    agent,system   current   yes        <never>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_token_users_and_expiry_with_secret_storage() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    assert_snapshot!(crt(&fixture, &["list", id]).await?, @r"
    $ kubectl-crt list c-id123
    CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY        STATE     LAST ROTATED
    lyon      c-id123   default-token   AAAAAAAAAA    <n>   30d       <none>         current   <never>
    lyon      c-id123   system          BBBBBBBBBB    <n>   30d       agent,system   current   <never>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", id, "-o", "wide", "--probe"]).await?, @r"
    $ kubectl-crt list c-id123 -o wide --probe
    CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY        STATE     ACCEPTED   LAST ROTATED   PREVIOUS   KIND       STORAGE   MANAGED BY   ADDRESS                   PROBLEMS
    lyon      c-id123   default-token   AAAAAAAAAA    <n>   30d       <none>         current   yes        <never>        <none>     imported   secret    <none>       https://127.0.0.1:<port>   <none>
    lyon      c-id123   system          BBBBBBBBBB    <n>   30d       agent,system   current   yes        <never>        <none>     imported   secret    <none>       https://127.0.0.1:<port>   <none>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_supports_the_output_formats_of_kubectl() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    assert_snapshot!(crt(&fixture, &["list", &fixture.cluster.id, "-o", "name"]).await?, @r"
    $ kubectl-crt list c-id123 -o name
    clusterregistrationtoken.management.cattle.io/default-token
    clusterregistrationtoken.management.cattle.io/system
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", id, "--no-headers"]).await?, @r"
    $ kubectl-crt list c-id123 --no-headers
    lyon   c-id123   default-token   AAAAAAAAAA   <n>   30d   <none>         current   <never>
    lyon   c-id123   system          BBBBBBBBBB   <n>   30d   agent,system   current   <never>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", id, "--no-headers", "--sort-by", "{.metadata.name}"]).await?, @r"
    $ kubectl-crt list c-id123 --no-headers --sort-by {.metadata.name}
    lyon   c-id123   default-token   AAAAAAAAAA   <n>   30d   <none>         current   <never>
    lyon   c-id123   system          BBBBBBBBBB   <n>   30d   agent,system   current   <never>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", id, "--no-headers", "--sort-by=.state"]).await?, @r"
    $ kubectl-crt list c-id123 --no-headers --sort-by=.state
    lyon   c-id123   default-token   AAAAAAAAAA   <n>   30d   <none>         current   <never>
    lyon   c-id123   system          BBBBBBBBBB   <n>   30d   agent,system   current   <never>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", id, "-o", "yaml"]).await?, @r#"
    $ kubectl-crt list c-id123 -o yaml
    apiVersion: kubectl-rotation.github.io/v1alpha1
    items:
    - apiVersion: kubectl-rotation.github.io/v1alpha1
      cluster:
        displayName: lyon
        id: c-id123
        kind: imported
      expiresAt: "<time>"
      fingerprint: AAAAAAAAAA
      graceEndsAt: null
      kind: RegistrationToken
      lastResult: null
      lastRotated: null
      metadata:
        creationTimestamp: "<time>"
        name: default-token
        namespace: c-id123
        uid: <uid>
      previousFingerprint: null
      problems: []
      reason: ""
      state: current
      tokenStorage: secret
      usedBy: []
    - apiVersion: kubectl-rotation.github.io/v1alpha1
      cluster:
        displayName: lyon
        id: c-id123
        kind: imported
      expiresAt: "<time>"
      fingerprint: BBBBBBBBBB
      graceEndsAt: null
      kind: RegistrationToken
      lastResult: null
      lastRotated: null
      metadata:
        creationTimestamp: "<time>"
        name: system
        namespace: c-id123
        uid: <uid>
      previousFingerprint: null
      problems: []
      reason: ""
      state: current
      tokenStorage: secret
      usedBy:
      - agent
      - system
    kind: RegistrationTokenList
    metadata: {}
    ----- stderr -----
    ----- exit status: 0 -----
    "#);
    let path = r#"jsonpath={range .items[*]}{.metadata.name} {.usedBy}{"\n"}{end}"#;
    assert_snapshot!(crt(&fixture, &["list", id, "-o", path]).await?, @r#"
    $ kubectl-crt list c-id123 -o jsonpath={range .items[*]}{.metadata.name} {.usedBy}{"\n"}{end}
    default-token []
    system ["agent","system"]
    ----- stderr -----
    ----- exit status: 0 -----
    "#);
    let columns = "custom-columns=TOKEN:.metadata.name,FINGERPRINT:.fingerprint,LAST:.lastRotated";
    assert_snapshot!(crt(&fixture, &["list", id, "-o", columns]).await?, @r"
    $ kubectl-crt list c-id123 -o custom-columns=TOKEN:.metadata.name,FINGERPRINT:.fingerprint,LAST:.lastRotated
    TOKEN           FINGERPRINT   LAST
    default-token   AAAAAAAAAA
    system          BBBBBBBBBB
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", id, "-o", "csv"]).await?, @r#"
    $ kubectl-crt list c-id123 -o csv
    ----- stderr -----
    error: unable to match a printer suitable for the output format "csv", allowed formats are: custom-columns, json, jsonpath, jsonpath-file, name, wide, yaml
    ----- exit status: 1 -----
    "#);

    // Each item of the list is a complete document, as in kubectl.
    let listed: Value = serde_json::from_str(
        &fixture
            .shell
            .crt(["list", id, "-o", "json"])
            .run()
            .await?
            .expect(0)?
            .stdout,
    )?;
    let system = &listed["items"][1];
    let values = manual_changes::values(&fixture).await?;
    assert_eq!(
        system["fingerprint"],
        json!(crate::state::fingerprint(&values["system"]))
    );
    assert_eq!(
        (&system["kind"], &system["state"], &system["metadata"]["namespace"]),
        (&json!("RegistrationToken"), &json!("current"), &json!(id))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_selects_clusters_by_label_and_id() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "lyon").await?;
    let second = fixture
        .rancher
        .register_as(&test_cluster::Registration::imported("bonn").quick())
        .await?;
    let id = fixture.cluster.id.as_str();
    let label = format!(r#"{{"metadata":{{"labels":{{"test":"{id}"}}}}}}"#);
    manual_changes::patch(&fixture, &["clusters.management.cattle.io", id], &label).await?;

    let names = |text: String| -> Vec<String> {
        let ids = text.lines().filter_map(|line| line.split_whitespace().nth(1));
        ids.map(str::to_owned).collect()
    };
    let list = async |args: &[&str]| -> Result<Vec<String>> {
        let all = ["list", "--no-headers"].iter().chain(args);
        Ok(names(fixture.shell.crt(all).run().await?.expect(0)?.stdout))
    };
    assert_eq!(list(&["-l", &format!("test={id}")]).await?, [id, id]);
    assert_eq!(list(&["-l", &format!("test in ({id}),test!=x")]).await?, [id, id]);
    let both = list(&[&second.id, id, id]).await?;
    assert_eq!(
        both,
        [&second.id, &second.id, id, id],
        "in the order of the command line, each once"
    );
    let all = list(&[]).await?;
    assert!(all.iter().any(|one| one == id) && all.contains(&second.id), "{all:?}");
    assert!(all.is_sorted(), "{all:?}");

    assert_snapshot!(crt(&fixture, &["list", "-l", "test=none"]).await?, @r"
    $ kubectl-crt list -l test=none
    ----- stderr -----
    No registration tokens found.
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", "c-none"]).await?, @r#"
    $ kubectl-crt list c-none
    ----- stderr -----
    error: cluster "c-none" not found
    ----- exit status: 1 -----
    "#);
    let rest = fixture
        .shell
        .crt(["list", "c-none", id, "-o", "name"])
        .run()
        .await?
        .expect(1)?;
    assert_eq!(rest.stdout.lines().count(), 2, "{rest}");
    assert!(
        rest.stderr.contains("cluster \"c-none\" not found") && rest.stderr.contains("1 of 2 clusters were not listed"),
        "{rest}"
    );
    assert_snapshot!(crt(&fixture, &["list", id, "-l", "a=b"]).await?, @r"
    $ kubectl-crt list c-id123 -l a=b
    ----- stderr -----
    error: the argument '[CLUSTER]...' cannot be used with '--selector <SELECTOR>'

    Usage: kubectl crt list <CLUSTER>...

    For more information, try '--help'.
    ----- exit status: 2 -----
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_rejects_a_name_shared_by_two_clusters() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "twin").await?;
    let second = fixture
        .rancher
        .register_as(&test_cluster::Registration::imported("twin").quick())
        .await?;
    let outcome = fixture.shell.crt(["list", "twin"]).run().await?.expect(2)?;
    for id in [&fixture.cluster.id, &second.id] {
        assert!(outcome.stderr.contains(id.as_str()), "{outcome}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_a_token_secret_without_a_token_object() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    let orphan = json!([{
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "crt-token-lost", "namespace": id},
        "stringData": {"token": "orphanorphanorphanorphanorphanorphanorphanorphanorphan"},
    }]);
    manual_changes::create(&fixture, orphan).await?;
    assert_snapshot!(crt(&fixture, &["list", id, "--probe"]).await?, @r"
    $ kubectl-crt list c-id123 --probe
    CLUSTER   ID        NAME             FINGERPRINT   AGE   EXPIRES   USED BY        STATE     ACCEPTED   LAST ROTATED
    lyon      c-id123   default-token    AAAAAAAAAA    <n>   30d       <none>         current   yes        <never>
    lyon      c-id123   system           BBBBBBBBBB    <n>   30d       agent,system   current   yes        <never>
    lyon      c-id123   crt-token-lost   CCCCCCCCCC    <n>   <none>    <none>         orphan    yes        <never>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    assert_snapshot!(crt(&fixture, &["list", id, "-o", "name"]).await?, @r"
    $ kubectl-crt list c-id123 -o name
    clusterregistrationtoken.management.cattle.io/default-token
    clusterregistrationtoken.management.cattle.io/system
    secret/crt-token-lost
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_a_token_that_rancher_rotated_by_itself() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    let before = manual_changes::values(&fixture).await?["system"].clone();
    // Rancher rotates when both copies of the expiry are in the past.
    let past = "2020-01-01T00:00:00Z";
    let secret = ["secret", "crt-token-system", "-n", id];
    manual_changes::patch(
        &fixture,
        &secret,
        &format!(r#"{{"stringData":{{"expiresAt":"{past}"}}}}"#),
    )
    .await?;
    let token = ["clusterregistrationtokens.management.cattle.io", "system", "-n", id];
    manual_changes::patch(&fixture, &token, &format!(r#"{{"status":{{"expiresAt":"{past}"}}}}"#)).await?;
    let secrets = Api::<Secret>::namespaced(fixture.management.client().await?, id);
    until("Rancher to rotate the token", async || {
        let data = secrets.get("crt-token-system").await?.data.unwrap_or_default();
        Ok((data["token"].0 != before.as_bytes() && data.contains_key("previousToken")).then_some(()))
    })
    .await?;
    assert_snapshot!(crt(&fixture, &["list", id]).await?, @r"
    $ kubectl-crt list c-id123
    CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY                  STATE                 LAST ROTATED
    lyon      c-id123   default-token   AAAAAAAAAA    <n>   30d       <none>                   current               <never>
    lyon      c-id123   system          BBBBBBBBBB    <n>   30d       agent(previous),system   rotated, not pushed   <never>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    let reason = "jsonpath={.items[1].state}: {.items[1].reason}";
    assert_snapshot!(crt(&fixture, &["list", id, "-o", reason]).await?, @r"
    $ kubectl-crt list c-id123 -o jsonpath={.items[1].state}: {.items[1].reason}
    rotated-not-pushed: Rancher rotated it by itself, and pushes the new value when it reconciles the cluster next----- stderr -----
    ----- exit status: 0 -----
    ");

    // At the next event of the cluster, Rancher pushes it to the agent.
    fixture.rancher.cluster_event(&fixture.cluster).await?;
    let state = until("the agent to use it", async || {
        let listed = fixture
            .shell
            .crt(["list", id, "-o", "jsonpath={.items[1].state}"])
            .run()
            .await?;
        Ok((listed.stdout != "rotated-not-pushed").then_some(listed.stdout))
    })
    .await?;
    assert_eq!(state, "previous");
    assert_snapshot!(crt(&fixture, &["list", id, "-o", "wide"]).await?, @r"
    $ kubectl-crt list c-id123 -o wide
    CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY        STATE                                 LAST ROTATED   PREVIOUS     KIND       STORAGE   MANAGED BY   PROBLEMS
    lyon      c-id123   default-token   AAAAAAAAAA    <n>   30d       <none>         current                               <never>        <none>       imported   secret    <none>       <none>
    lyon      c-id123   system          BBBBBBBBBB    <n>   30d       agent,system   previous until <time>   <never>        CCCCCCCCCC   imported   secret    <none>       <none>
    ----- stderr -----
    ----- exit status: 0 -----
    ");
    Ok(())
}

/// The rows of a cluster: name, fingerprint, consumers and state.
async fn rows(fixture: &RancherFixture, args: &[&str]) -> Result<Vec<[Value; 4]>> {
    let list = ["list", &fixture.cluster.id, "-o", "json"];
    let listed = fixture.shell.crt(list.iter().chain(args)).run().await?.expect(0)?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    let row = |item: &Value| {
        [
            item["metadata"]["name"].clone(),
            item["fingerprint"].clone(),
            item["usedBy"].clone(),
            item["state"].clone(),
        ]
    };
    Ok(listed["items"].as_array().into_iter().flatten().map(row).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_an_agent_whose_registration_token_is_gone() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    let values = manual_changes::values(&fixture).await?;
    let delete = [
        "--context",
        "management",
        "-n",
        id,
        "delete",
        "clusterregistrationtokens.management.cattle.io",
        "system",
    ];
    fixture.shell.kubectl(delete).run().await?.expect(0)?;
    let secrets = Api::<Secret>::namespaced(fixture.management.client().await?, id);
    until("the Secret of the token to be collected", async || {
        Ok(secrets.get_opt("crt-token-system").await?.is_none().then_some(()))
    })
    .await?;
    let [system, default] = ["system", "default-token"].map(|name| json!(crate::state::fingerprint(&values[name])));
    let name = json!("default-token");
    assert_eq!(
        rows(&fixture, &[]).await?,
        [
            [name.clone(), default.clone(), Value::Null, json!("current")],
            [Value::Null, system.clone(), json!(["agent-inferred"]), json!("missing")],
        ]
    );
    // The agent itself knows which token it uses.
    assert_eq!(
        rows(&fixture, &["--probe"]).await?,
        [
            [name, default, json!([]), json!("current")],
            [Value::Null, system, json!(["agent"]), json!("missing")],
        ]
    );
    let names = fixture.shell.crt(["list", id, "-o", "name"]).run().await?.expect(0)?;
    assert!(
        names
            .stdout
            .ends_with(&format!("\ncluster.management.cattle.io/{id}\n")),
        "{names}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_with_the_context_of_a_downstream_cluster_names_that_context() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let direct = format!("{}-direct", fixture.cluster.id);
    assert_snapshot!(crt(&fixture, &["list", "--context", &direct]).await?, @r#"
    $ kubectl-crt list --context c-id123-direct
    ----- stderr -----
    error: context "c-id123-direct" does not lead to a Rancher management cluster: it has no clusters.management.cattle.io
    hint: pass a context of Rancher (…/k8s/clusters/local) with --context
    ----- exit status: 1 -----
    "#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn list_without_permission_to_read_secrets_warns_once() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    let read = |resources: Value, groups: Value| json!({"apiGroups": groups, "resources": resources, "verbs": ["get", "list"]});
    let rules = json!([
        read(
            json!(["clusters", "clusterregistrationtokens"]),
            json!(["management.cattle.io"])
        ),
        read(json!(["leases"]), json!(["coordination.k8s.io"])),
    ]);
    let user = manual_changes::user_with(&fixture, "reader", rules).await?;
    let shell = fixture.shell_of(&user).await?;
    assert_snapshot!(mask_output(&shell.crt(["list", id]).run().await?.to_string()), @r"
    $ kubectl-crt list c-id123
    CLUSTER   ID        NAME            FINGERPRINT   AGE   EXPIRES   USED BY     STATE       LAST ROTATED
    lyon      c-id123   default-token   <unknown>     <n>   30d       <unknown>   <unknown>   <never>
    lyon      c-id123   system          <unknown>     <n>   30d       system      <unknown>   <never>
    ----- stderr -----
    Warning: no permission to list Secrets: fingerprints of tokens in Secrets are unknown, and orphaned Secrets are not listed
    ----- exit status: 0 -----
    ");
    // All clusters, in pages: the warning is printed once.
    let all = shell.crt(["list"]).run().await?.expect(0)?;
    assert_eq!(all.stderr.matches("Warning:").count(), 1, "{all}");

    // Rancher rejects users without any permission. The order of the first responses is undefined.
    let unprivileged = manual_changes::user_with(&fixture, "unprivileged", json!([])).await?;
    let shell = fixture.shell_of(&unprivileged).await?;
    let refused = shell.crt(["list", id]).run().await?.expect(1)?;
    assert!(
        refused.stderr.starts_with("Error from server (Forbidden): cannot "),
        "{refused}"
    );
    assert!(
        refused.stderr.contains("on the management cluster") && refused.stdout.is_empty(),
        "{refused}"
    );
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn list_shows_the_same_through_every_context(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lyon").await?;
    let id = fixture.cluster.id.as_str();
    let mut seen = Vec::new();
    for context in ["rancher", "bare", "management", id] {
        let fields = "custom-columns=N:.metadata.name,F:.fingerprint,S:.state,U:.usedBy";
        let list = ["list", id, "--context", context, "-o", fields];
        let outcome = fixture.shell.crt(list).run().await?.expect(0)?;
        assert_eq!(outcome.stderr, "", "{outcome}");
        seen.push(outcome.stdout);
    }
    assert_eq!(seen[0].lines().count(), 3, "{}", seen[0]);
    assert!(seen.iter().all(|other| *other == seen[0]), "{seen:#?}");
    Ok(())
}
