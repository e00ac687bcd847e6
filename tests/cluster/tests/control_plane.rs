//! Tests of the control plane and of the fault proxy.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig as KubeKubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use test_cluster::{
    ControlPlane, Fault, FaultProxy, Kubeconfig, Moment, On, Outage, TestEnvironment, TokenStorage, Upstream,
};

#[tokio::test(flavor = "multi_thread")]
async fn management_and_downstream_clusters_start_together() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let begin = Instant::now();
    let (management, downstream) =
        tokio::try_join!(environment.management(TokenStorage::Status), environment.downstream())?;
    println!("both up after {:?}", begin.elapsed());
    for plane in [management, downstream] {
        println!("{}: {:?} MiB", plane.name(), plane.memory().await);
        assert_eq!(plane.client().await?.apiserver_version().await?.major, "1");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_api_server_restarts_with_its_objects() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let own = ControlPlane::start(
        environment.programs(),
        &environment.dir().join("own"),
        "own",
        test_cluster::Shape::WithoutNodes,
    )
    .await?;
    let namespace = own.namespace("kept").await?;
    own.kill_apiserver().await;
    assert!(
        own.client().await?.apiserver_version().await.is_err(),
        "a killed API server must not answer"
    );
    own.start_apiserver().await?;
    let api = Api::<k8s_openapi::api::core::v1::Namespace>::all(own.client().await?);
    assert!(api.get_opt(&namespace).await?.is_some());
    let begin = Instant::now();
    own.restart_apiserver().await?;
    println!("restarted in {:?}", begin.elapsed());
    own.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_fails_to_start_reports_why() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let dir = environment.dir().join("broken");
    // A file in place of etcd's data directory.
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("etcd"), "not a directory")?;
    let start = ControlPlane::start(
        environment.programs(),
        &dir,
        "broken",
        test_cluster::Shape::WithoutNodes,
    )
    .await;
    let error = format!("{:#}", start.err().context("it must fail")?);
    assert!(
        error.contains("etcd ended") && error.contains("not a directory"),
        "{error}"
    );
    Ok(())
}

/// A proxy in front of a management cluster, and a client that uses it.
async fn proxied(namespace: &str) -> Result<(FaultProxy, Kubeconfig, Api<ConfigMap>)> {
    let plane = TestEnvironment::shared()
        .await?
        .management(TokenStorage::Status)
        .await?;
    let namespace = plane.namespace(namespace).await?;
    let proxy = FaultProxy::start([Upstream::admin_of(plane)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(plane.kubeconfig())?);
    let config: KubeKubeconfig = serde_json::from_value(serde_json::to_value(&kubeconfig)?)?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok((
        proxy,
        kubeconfig,
        Api::namespaced(Client::try_from(config)?, &namespace),
    ))
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_counts_writes_but_no_reads_or_dry_runs() -> Result<()> {
    let (proxy, _, maps) = proxied("counted").await?;
    maps.create(&PostParams::default(), &config_map("a")).await?;
    maps.create(
        &PostParams {
            dry_run: true,
            ..PostParams::default()
        },
        &config_map("b"),
    )
    .await?;
    maps.list(&kube::api::ListParams::default()).await?;
    maps.delete("a", &kube::api::DeleteParams::default()).await?;
    let writes: Vec<_> = proxy
        .writes()
        .into_iter()
        .map(|write| (write.method, write.status))
        .collect();
    assert_eq!(
        writes,
        [(Method::POST, Some(201)), (Method::DELETE, Some(200))],
        "{}",
        proxy.transcript()
    );
    assert_eq!(proxy.requests().len(), 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_rejection_applies_to_the_nth_matching_request_only() -> Result<()> {
    let (proxy, _, maps) = proxied("refused").await?;
    let pause = Some(Duration::from_secs(3));
    let planned = proxy.plan(
        On::write().path("*/configmaps/*").nth(2),
        Fault::Answer {
            status: 409,
            retry_after: pause,
        },
    );
    maps.create(&PostParams::default(), &config_map("a")).await?;
    let patch = Patch::Merge(json!({ "data": { "k": "v" } }));
    maps.patch("a", &PatchParams::default(), &patch).await?;
    let error = maps
        .patch("a", &PatchParams::default(), &patch)
        .await
        .err()
        .context("it must be refused")?;
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 409),
        "{error:?}"
    );
    assert_eq!(planned.struck(), 1);
    maps.patch("a", &PatchParams::default(), &patch).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_lost_after_the_request_was_processed() -> Result<()> {
    let (proxy, _, maps) = proxied("lost").await?;
    proxy.plan(On::write(), Fault::LoseAnswer);
    assert!(maps.create(&PostParams::default(), &config_map("a")).await.is_err());
    assert!(maps.get_opt("a").await?.is_some());
    proxy.plan(On::read(), Fault::Cut);
    assert!(maps.get("a").await.is_err(), "half an object is no object");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_closes_watches_and_rejects_requests_until_it_ends() -> Result<()> {
    let (proxy, _, maps) = proxied("away").await?;
    maps.create(&PostParams::default(), &config_map("a")).await?;
    let mut watch = maps.watch(&WatchParams::default(), "0").await?.boxed();
    assert!(matches!(watch.try_next().await?, Some(WatchEvent::Added(_))));
    let begin = Instant::now();
    proxy.away(Outage {
        prefix: "/api/".into(),
        lasts: Duration::from_millis(600),
        status: Some(503),
    });
    while let Some(Ok(_)) = watch.next().await {}
    assert!(maps.get("a").await.is_err());
    while maps.get("a").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(600),
        "came back after {:?}",
        begin.elapsed()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_applies_to_requests_responses_and_watches_in_order() -> Result<()> {
    const DELAY: Duration = Duration::from_millis(500);
    let (proxy, _, maps) = proxied("delayed").await?;
    // The connection exists.
    maps.create(&PostParams::default(), &config_map("counted")).await?;
    let took = async |name: &str| -> Result<Duration> {
        let begin = Instant::now();
        maps.get(name).await?;
        Ok(begin.elapsed())
    };
    assert!(took("counted").await? < DELAY);
    let mut watch = maps.watch(&WatchParams::default(), "0").await?.boxed();
    assert!(matches!(watch.try_next().await?, Some(WatchEvent::Added(_))));
    drop(watch);

    proxy.delay(On::request().path("*/configmaps*"), DELAY);
    assert!(took("counted").await? >= 2 * DELAY);
    let mut watch = maps.watch(&WatchParams::default(), "0").await?.boxed();
    assert!(matches!(watch.try_next().await?, Some(WatchEvent::Added(_))));
    // Without the proxy, so that these writes are not delayed.
    let namespace = maps.resource_url().split('/').nth(4).unwrap_or_default().to_owned();
    let plane = TestEnvironment::shared()
        .await?
        .management(TokenStorage::Status)
        .await?;
    let direct = Api::<ConfigMap>::namespaced(plane.client().await?, &namespace);
    let (begin, names) = (Instant::now(), ["a", "b", "c", "d", "e"]);
    for name in names {
        direct.create(&PostParams::default(), &config_map(name)).await?;
    }
    let written = begin.elapsed();
    let mut came = Vec::new();
    while came.len() < names.len() {
        if let Some(WatchEvent::Added(map)) = watch.try_next().await? {
            let name = map.metadata.name.unwrap_or_default();
            // Kubernetes publishes its CA in every namespace.
            if names.contains(&name.as_str()) {
                came.push(name);
            }
        }
    }
    let last = begin.elapsed();
    assert_eq!(came, names);
    assert!(last >= DELAY, "{last:?}");
    // They are delayed in parallel.
    assert!(last < written + 3 * DELAY, "{last:?} after {written:?}");

    proxy.delay(On::request(), Duration::ZERO);
    assert!(took("counted").await? < DELAY);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_killed_right_before_and_right_after_its_write() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    for (moment, exists) in [(Moment::Before, false), (Moment::After, true)] {
        let (proxy, kubeconfig, maps) = proxied("killed").await?;
        let dir = tempfile::tempdir()?;
        let file = kubeconfig.write(dir.path().join("kubeconfig"))?;
        let kubectl = environment.programs().link_kubectl(dir.path())?;
        let planned = proxy.plan(On::write(), Fault::Kill(moment));
        let namespace = maps.resource_url().split('/').nth(4).unwrap_or_default().to_owned();
        let mut child = Command::new(kubectl)
            .args(["create", "configmap", "a", "--namespace", &namespace])
            .env("KUBECONFIG", file)
            .env("HOME", dir.path())
            .stderr(Stdio::null())
            .spawn()?;
        proxy.victim(child.id());
        let status = tokio::task::spawn_blocking(move || child.wait()).await??;
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "{}",
            proxy.transcript()
        );
        assert_eq!(planned.struck(), 1);
        assert_eq!(maps.get_opt("a").await?.is_some(), exists, "{moment:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_of_a_paused_process_is_held_until_it_is_released() -> Result<()> {
    let (proxy, _, maps) = proxied("stopped").await?;
    // A process to pause in place of a plugin. The request is ours.
    let mut victim = Command::new("sleep").arg("600").spawn()?;
    proxy.victim(victim.id());
    let planned = proxy.plan(On::write(), Fault::Stop(Moment::Before));
    let writer = maps.clone();
    let write = tokio::spawn(async move { writer.create(&PostParams::default(), &config_map("a")).await });
    planned.strikes().await;
    let stopped = || {
        std::fs::read_to_string(format!("/proc/{}/stat", victim.id()))
            .unwrap_or_default()
            .contains(" T ")
    };
    while !stopped() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(maps.get_opt("a").await?.is_none(), "the server has not seen it yet");
    planned.release();
    write.await??;
    assert!(maps.get_opt("a").await?.is_some());
    victim.kill()?;
    victim.wait()?;
    Ok(())
}
