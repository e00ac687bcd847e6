//! Rancher by a context, or by its URL and a token from three places.

use anyhow::Result;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn by_its_url_with_a_token_from_stdin_from_a_file_and_from_a_secret() -> Result<()> {
    let bench = Bench::begin("nice").await?;
    let (rancher, home) = (bench.story.rancher, bench.story.desk.home());
    let admin = testbed::User::admin().token;
    let ca = home.join("rancher-ca.crt");
    std::fs::write(&ca, rancher.ca_pem())?;
    let file = home.join("token");
    std::fs::write(&file, format!("{admin}\n"))?;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "rancher"}, "stringData": {"token": admin}}))?;
    bench.secrets.create(&PostParams::default(), &secret).await?;
    let place = format!("{}/rancher/token", bench.namespace);
    let (ca, file) = (ca.to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
    let url = [
        "add",
        bench.id(),
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
        let plan = bench.bare(&args).stdin(format!("{admin}\n")).run().await?.expect(0)?;
        assert!(plan.stdout.contains("would be created"), "{plan}");
    }
    let without = bench.bare(&url).run().await?.expect(2)?;
    assert!(without.stderr.contains("--rancher-url needs a token"), "{without}");
    let nothing = bench.bare(&["add", bench.id()]).run().await?.expect(2)?;
    assert!(nothing.stderr.contains("--rancher-context"), "{nothing}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_dead_or_scoped_and_a_context_that_is_none_of_ranchers_are_refused() -> Result<()> {
    let bench = Bench::begin("metz").await?;
    let ca = bench.story.desk.home().join("ca.crt");
    std::fs::write(&ca, bench.story.rancher.ca_pem())?;
    let ca = ca.to_string_lossy().into_owned();
    let url = [
        "add",
        bench.id(),
        "--rancher-url",
        bench.story.rancher.url(),
        "--rancher-certificate-authority",
        &ca,
        "--rancher-token-stdin",
    ];
    let dead = bench.bare(&url).stdin("token-dead:x").run().await?.expect(1)?;
    assert!(dead.stderr.contains("scoped to one cluster cannot mint"), "{dead}");
    let other = bench
        .bare(&["add", bench.id(), "--rancher-context", "management"])
        .run()
        .await?
        .expect(1)?;
    assert!(other.stderr.contains("a Rancher?"), "{other}");
    let version = bench.run(&["version"]).run().await?.expect(0)?;
    assert!(version.stdout.contains("Rancher Version: v2.15.0"), "{version}");
    bench.bare(&["version", "--client"]).run().await?.expect(0)?;
    let shim = bench.bare(&["completion"]).run().await?.expect(0)?;
    assert!(shim.stdout.contains("kubectl_complete-argocd_rancher"), "{shim}");
    // What Rancher has and Argo CD has not can be added, and completes.
    let complete = async |words: &[&str]| {
        let argo = ["--context", "management", "--namespace", &bench.namespace];
        let typed = ["argocd-rancher", "__complete"].iter().chain(&words[..1]).chain(&argo);
        bench
            .story
            .desk
            .kubectl(typed.chain(&words[1..]).chain(&[""]))
            .run()
            .await
    };
    let told = format!("{}\t", bench.id());
    let known = ["--rancher-context", "rancher"];
    let add = complete(&["add", known[0], known[1]]).await?.expect(0)?;
    assert!(add.stdout.contains(&told), "{add}");
    let nowhere = complete(&[
        "add",
        "--rancher-url",
        bench.story.rancher.url(),
        "--rancher-token-stdin",
    ])
    .await?;
    assert!(nowhere.stdout == ":4\n", "{nowhere}");
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let added = complete(&["add", known[0], known[1]]).await?.expect(0)?;
    assert!(!added.stdout.contains(&told), "{added}");
    let rotate = complete(&["rotate"]).await?.expect(0)?;
    assert!(rotate.stdout.contains(&told), "{rotate}");
    Ok(())
}
