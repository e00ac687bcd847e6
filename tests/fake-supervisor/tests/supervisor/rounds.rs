//! Rounds of PUTs over three servers, and the file times that they leave behind.

use serde_json::json;

use crate::cluster::{Cluster, NEW, OLD, OTHER, TRAP, fingerprint, unpinned};

#[tokio::test(flavor = "multi_thread")]
async fn a_round_then_restarts_one_by_one_rotate_the_token() {
    let cluster = Cluster::start(unpinned()).await;
    for (old, new) in [(OLD, NEW), (NEW, OTHER), (OTHER, OLD)] {
        cluster.round(old, new).await;
        cluster.a_minute_passes().await;
        for server in ["s1", "s2", "s3"] {
            cluster.starts(server).await;
            assert_eq!(
                (cluster.probe(server, old).await, cluster.probe(server, new).await),
                (401, 405)
            );
        }
        let state = cluster.state().await;
        let bytes = |server: &str| state["servers"][server]["files"]["cred/passwd"]["bytes"].clone();
        assert!(
            bytes("s1") == bytes("s2") && bytes("s2") == bytes("s3"),
            "starts make the files equal"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_round_can_be_undone_before_and_after_restarts() {
    let cluster = Cluster::start(unpinned()).await;
    cluster.round(OLD, NEW).await;
    cluster.a_minute_passes().await;
    cluster.starts("s1").await;
    assert_eq!(cluster.put("s1", NEW, OLD).await, 200);
    assert_eq!(cluster.put("s2", OLD, OLD).await, 200);
    assert_eq!(cluster.put("s3", OLD, OLD).await, 200);
    cluster.a_minute_passes().await;
    for server in ["s1", "s2", "s3"] {
        cluster.starts(server).await;
        assert_eq!(cluster.probe(server, OLD).await, 405);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_put_again_on_an_earlier_server_arms_the_trap_on_a_later_one() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    for server in ["s2", "s3", "s1"] {
        assert_eq!(cluster.put(server, OLD, NEW).await, 200);
    }
    cluster.fails("s3", TRAP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_is_reversed_half_way_arms_the_trap_on_the_first_server() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    cluster.round(OLD, OLD).await;
    cluster.fails("s1", TRAP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_with_a_fresh_value_cures_a_half_finished_one() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    cluster.round(OLD, OLD).await;
    cluster.a_minute_passes().await;
    cluster.round(OLD, OTHER).await;
    cluster.a_minute_passes().await;
    for server in ["s1", "s2", "s3"] {
        cluster.starts(server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_ahead_is_harmless_only_on_the_last_server_of_a_round() {
    for (order, fatal) in [(["s1", "s2", "s3"], true), (["s2", "s3", "s1"], false)] {
        let cluster = Cluster::start(unpinned()).await;
        cluster.faults("s1", json!({"ahead": 5.0})).await;
        for server in order {
            assert_eq!(cluster.put(server, OLD, NEW).await, 200);
        }
        if fatal {
            cluster.fails("s1", TRAP).await;
        } else {
            cluster.starts("s1").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_can_be_far_apart_without_waiting() {
    let mut config = unpinned();
    config["timing"] = json!({"scale": 1.0 / 40.0, "writeGap": 10});
    let cluster = Cluster::start(config).await;
    for server in ["s1", "s2", "s3", "s1"] {
        assert_eq!(cluster.put(server, OLD, NEW).await, 200);
    }
    cluster.fails("s3", TRAP).await;
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint(NEW)]));
}
