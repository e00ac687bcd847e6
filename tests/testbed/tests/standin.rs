//! The stand-in as the bed starts it, and how everything ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use testbed::{Bed, Era, Registration, Standin, User};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_each_era_is_registered_and_connected() -> Result<()> {
    let bed = Bed::shared().await?;
    for era in Era::ALL {
        let begin = Instant::now();
        let rancher = bed.rancher(era).await?;
        println!("{era:?}: up after {:?}", begin.elapsed());
        let begin = Instant::now();
        let cluster = rancher.register("berlin").await?;
        println!("{era:?}: registered after {:?}", begin.elapsed());
        let report = rancher.report(&cluster).await?;
        assert!(report.connected_since.is_some(), "{report:?}");
        assert_eq!(report.fingerprints().len(), 1, "one token for both tunnels: {report:?}");
        assert!(
            report
                .accepted
                .iter()
                .any(|accepted| accepted == report.fingerprints()[0]),
            "{report:?}"
        );
        assert!(
            rancher
                .log_of(&cluster)?
                .iter()
                .any(|line| line["kind"] == "tunnel-open")
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rancher_of_ones_own_is_upgraded_under_a_living_cluster() -> Result<()> {
    let bed = Bed::shared().await?;
    let (_management, rancher) = bed.separate_rancher("upgraded", Era::Plain, json!({})).await?;
    let cluster = rancher.register_as(&Registration::imported("riga").quick()).await?;
    let before = rancher.report(&cluster).await?;
    rancher.upgrade().await?;
    let after = rancher.report(&cluster).await?;
    assert!(
        after
            .accepted
            .iter()
            .any(|accepted| accepted == before.fingerprints()[0]),
        "{before:?} {after:?}"
    );
    Ok(())
}

/// Asks as the bearer of a value, or as nobody, and gives code and body.
async fn ask(rancher: &Standin, method: &str, path: &str, value: Option<&str>, body: &str) -> Result<(u16, String)> {
    let user = value.map(|value| User {
        name: String::new(),
        token: value.to_owned(),
        groups: Vec::new(),
    });
    let client = rancher.client("", user.as_ref())?;
    let request = http::Request::builder().method(method).uri(path);
    let answer = client.send(request.body(body.as_bytes().to_vec().into())?).await?;
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect_bytes().await?;
    Ok((code, String::from_utf8(bytes.to_vec())?))
}

/// Makes a token for the admin, and gives its name and its value.
async fn minted(rancher: &Standin, cluster: &str, ttl: i64) -> Result<(String, String)> {
    let body = json!({"type": "token", "clusterId": cluster, "ttl": ttl}).to_string();
    let (code, answer) = ask(rancher, "POST", "/v3/tokens", Some(&User::admin().token), &body).await?;
    assert_eq!(code, 201, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    assert_eq!(answer["expiresAt"], "", "{answer}");
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    Ok((text("name"), text("token")))
}

#[tokio::test(flavor = "multi_thread")]
async fn api_tokens_are_answered_as_rancher_answers_them() -> Result<()> {
    let bed = Bed::shared().await?;
    let rancher = bed.rancher(Era::Secret).await?;
    let cluster = rancher.register_as(&Registration::imported("lund").quick()).await?;
    let (admin, id) = (User::admin().token, cluster.id.as_str());
    let (name, scoped) = minted(rancher, id, 0).await?;
    let (_, stillborn) = minted(rancher, id, -1).await?;
    let (_, elsewhere) = minted(rancher, "c-other", 60_000).await?;
    let (_, at_local) = minted(rancher, "local", 60_000).await?;
    let (one, version) = (format!("/v3/clusters/{id}"), format!("/k8s/clusters/{id}/version"));
    let local = "/k8s/clusters/local/version";
    let nobody = "User \\\"system:unauthenticated\\\" cannot get resource \\\"clusters\\\"";
    let denied = "Unauthorized 401: must authenticate";
    let unseen = "User \\\"u-viewer\\\" cannot get resource \\\"clusters\\\"";
    let viewer = User::viewer().token;
    for (value, path, code, says) in [
        (scoped.as_str(), version.as_str(), 200, "gitVersion"),
        (&scoped, &one, 200, id),
        (&scoped, local, 401, "\"kind\":\"Status\""),
        (&scoped, "/v3/tokens", 401, denied),
        (&scoped, "/version", 401, "\"kind\":\"Status\""),
        (&at_local, local, 200, "gitVersion"),
        (&elsewhere, &version, 403, nobody),
        (&stillborn, &version, 403, nobody),
        (&stillborn, &one, 401, denied),
        ("token-x:y", &version, 403, nobody),
        (&viewer, &version, 403, unseen),
        (&viewer, "/k8s/clusters/local/api/v1/nodes", 403, ""),
        (&admin, "/k8s/clusters/c-nowhere/version", 404, "\"Code\":\"NotFound\""),
        (&admin, "/v3/tokens/token-none", 404, "NotFound"),
    ] {
        let (seen, body) = ask(rancher, "GET", path, Some(value), "").await?;
        assert!(seen == code && body.contains(says), "{path}: {seen} {body}");
    }
    let path = format!("/v3/tokens/{name}");
    let (_, shown) = ask(rancher, "GET", &path, Some(&admin), "").await?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    // 90 days, since 0 means "the most".
    assert_eq!(shown["ttl"], 7_776_000_000_i64, "{shown}");
    assert!(
        shown["lastUsedAt"].is_string() && shown.get("token").is_none(),
        "{shown}"
    );
    for code in [204, 404] {
        assert_eq!(ask(rancher, "DELETE", &path, Some(&admin), "").await?.0, code);
    }
    assert_eq!(ask(rancher, "GET", &version, Some(&scoped), "").await?.0, 403);
    let session = ask(rancher, "DELETE", "/v3/tokens/token-admin", Some(&admin), "").await?;
    assert_eq!(session.0, 400, "{session:?}");
    Ok(())
}

/// Set for the process that the next test kills.
const VICTIM: &str = "TESTBED_TEST_VICTIM";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_process_that_was_killed() -> Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        println!("\nalive: {}", everything().await?);
        return std::future::pending().await;
    }
    // Built before, so that the victim is only waited for while it starts.
    Bed::shared().await?;
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "nothing_outlives_a_process_that_was_killed", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(victim.stdout.take().context("no output")?).lines();
    let told = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("alive: ").map(str::to_owned));
    victim.kill()?;
    victim.wait()?;
    let (dir, pids): (String, Vec<u32>) = serde_json::from_str(&told.context("it did not come up")?)?;
    assert!(pids.len() >= 9, "{pids:?}");
    let left = || {
        let alive = |pid: &&u32| Path::new(&format!("/proc/{pid}")).exists();
        (pids.iter().filter(alive).count(), Path::new(&dir).exists())
    };
    let killed = Instant::now();
    while left() != (0, false) {
        assert!(
            killed.elapsed() < Duration::from_secs(20),
            "still there (processes, directory): {:?}",
            left()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("everything gone after {:?}", killed.elapsed());
    Ok(())
}

/// Starts what there is, and names its directory and its processes.
async fn everything() -> Result<serde_json::Value> {
    let bed = Bed::shared().await?;
    let rancher = bed.rancher(Era::Secret).await?;
    let mut pids = vec![rancher.process().pid()];
    pids.extend(bed.management(Era::Secret).await?.pids().await);
    pids.extend(bed.downstream().await?.pids().await);
    Ok(json!([bed.dir(), pids]))
}
