//! The flags that lead to Rancher: a context, or a URL with a token.

use anyhow::Result;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn rancher_is_reached_by_url_with_a_token_from_stdin_file_or_secret() -> Result<()> {
    let fixture = Fixture::begin("nice").await?;
    let (rancher, home) = (fixture.base.rancher, fixture.base.shell.home());
    let admin = test_cluster::User::admin().token;
    let ca = home.join("rancher-ca.crt");
    std::fs::write(&ca, rancher.ca_pem())?;
    let file = home.join("token");
    std::fs::write(&file, format!("{admin}\n"))?;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "rancher"}, "stringData": {"token": admin}}))?;
    fixture.secrets.create(&PostParams::default(), &secret).await?;
    let place = format!("{}/rancher/token", fixture.namespace);
    let (ca, file) = (ca.to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
    let url = [
        "add",
        fixture.id(),
        "--dry-run",
        "--rancher-url",
        rancher.url(),
        "--rancher-certificate-authority",
        &ca,
    ];

    for how in [
        vec!["--rancher-token-stdin"],
        vec!["--rancher-token-file", &file],
        vec!["--rancher-token-secret", &place],
    ] {
        let args = [url.as_slice(), how.as_slice()].concat();
        let plan = fixture.bare(&args).stdin(format!("{admin}\n")).run().await?.expect(0)?;
        assert!(plan.stdout.contains("would be created"), "{plan}");
    }
    let without = fixture.bare(&url).run().await?.expect(2)?;
    assert!(without.stderr.contains("--rancher-url needs a token"), "{without}");
    let nothing = fixture.bare(&["add", fixture.id()]).run().await?.expect(2)?;
    assert!(nothing.stderr.contains("--rancher-context"), "{nothing}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_tokens_and_contexts_are_refused() -> Result<()> {
    let fixture = Fixture::begin("metz").await?;
    let ca = fixture.base.shell.home().join("ca.crt");
    std::fs::write(&ca, fixture.base.rancher.ca_pem())?;
    let ca = ca.to_string_lossy().into_owned();
    let url = [
        "add",
        fixture.id(),
        "--rancher-url",
        fixture.base.rancher.url(),
        "--rancher-certificate-authority",
        &ca,
        "--rancher-token-stdin",
    ];
    let rejected = fixture.bare(&url).stdin("token-revoked:x").run().await?.expect(1)?;
    assert!(
        rejected.stderr.contains("scoped to one cluster cannot issue"),
        "{rejected}"
    );
    let other = fixture
        .bare(&["add", fixture.id(), "--rancher-context", "management"])
        .run()
        .await?
        .expect(1)?;
    assert!(other.stderr.contains("is the URL of a Rancher server"), "{other}");
    let version = fixture.run(&["version"]).run().await?.expect(0)?;
    assert!(version.stdout.contains("Rancher Version: v2.15.0"), "{version}");
    fixture.bare(&["version", "--client"]).run().await?.expect(0)?;
    let shim = fixture.bare(&["completion"]).run().await?.expect(0)?;
    assert!(shim.stdout.contains("kubectl_complete-argocd_rancher"), "{shim}");
    // `add` completes the clusters that Argo CD does not have yet.
    let complete = async |words: &[&str]| {
        let argo = ["--context", "management", "--namespace", &fixture.namespace];
        let typed = ["argocd-rancher", "__complete"].iter().chain(&words[..1]).chain(&argo);
        fixture
            .base
            .shell
            .kubectl(typed.chain(&words[1..]).chain(&[""]))
            .run()
            .await
    };
    let candidate = format!("{}\t", fixture.id());
    let known = ["--rancher-context", "rancher"];
    let add = complete(&["add", known[0], known[1]]).await?.expect(0)?;
    assert!(add.stdout.contains(&candidate), "{add}");
    let unreachable = complete(&[
        "add",
        "--rancher-url",
        fixture.base.rancher.url(),
        "--rancher-token-stdin",
    ])
    .await?;
    assert!(unreachable.stdout == ":4\n", "{unreachable}");
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let added = complete(&["add", known[0], known[1]]).await?.expect(0)?;
    assert!(!added.stdout.contains(&candidate), "{added}");
    let rotate = complete(&["rotate"]).await?.expect(0)?;
    assert!(rotate.stdout.contains(&candidate), "{rotate}");
    Ok(())
}
