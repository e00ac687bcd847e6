//! A server that is killed inside a PUT, and how it comes back.

use serde_json::json;

use crate::cluster::{Cluster, NEW, OLD, OTHER, SAVE, TRAP, fingerprint, unpinned};

#[tokio::test(flavor = "multi_thread")]
async fn after_passwd_within_3_s_of_the_last_save_nothing_has_happened() {
    let cluster = Cluster::start(unpinned()).await;
    cluster.faults("s1", json!({"staysDown": true})).await;
    assert_eq!(cluster.put("s1", OLD, OTHER).await, 200);
    cluster.faults("s1", json!({"kill": "after-passwd"})).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 0);
    cluster
        .until(|state| state["servers"]["s1"]["unit"]["active"] == "failed")
        .await;
    cluster.starts("s1").await;
    assert_eq!(cluster.probe("s1", OTHER).await, 405);
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint(OTHER)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_passwd_later_it_is_the_trap_and_the_same_put_elsewhere_completes_it() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put_and_kill("s1", "after-passwd").await, 0);
    cluster.fails("s1", TRAP).await;
    std::fs::remove_file(cluster.file("s1", "cred/passwd")).unwrap();
    cluster.starts("s1").await;
    assert_eq!(cluster.probe("s1", OLD).await, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_token_file_is_fatal_until_the_old_token_is_configured_and_passwd_deleted() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put_and_kill("s1", "in-token").await, 0);
    cluster
        .fails(
            "s1",
            "failed to start cluster: bootstrap data already found and encrypted with different token",
        )
        .await;
    cluster.pin("s1", "config", Some(OLD)).await;
    cluster.fails("s1", TRAP).await;
    std::fs::remove_file(cluster.file("s1", "cred/passwd")).unwrap();
    cluster.starts("s1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_key_moved_the_own_copy_has_two_keys() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put_and_kill("s1", "after-key").await, 0);
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint(NEW)]));
    cluster.fails("s1", TRAP).await;
    assert!(cluster.log("s1").contains("found multiple bootstrap keys in storage"));
    // The others complete it.
    for server in ["s2", "s3"] {
        assert_eq!(cluster.put(server, OLD, NEW).await, 200);
    }
    cluster.a_minute_passes().await;
    // Deleting the file alone brings the old login back from the stale copy.
    std::fs::remove_file(cluster.file("s1", "cred/passwd")).unwrap();
    cluster.fails("s1", SAVE).await;
    assert_eq!(
        cluster.state().await["servers"]["s1"]["files"]["token"]["fingerprint"],
        fingerprint(OLD)
    );
    cluster.pin("s1", "config", Some(NEW)).await;
    cluster.starts("s1").await;
    cluster.pin("s1", "nowhere", None).await;
    cluster.starts("s1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_save_everything_is_done_but_the_answer() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put_and_kill("s1", "after-save").await, 0);
    for server in ["s2", "s3"] {
        assert_eq!(cluster.put(server, OLD, NEW).await, 200);
    }
    cluster.a_minute_passes().await;
    cluster.starts("s1").await;
    assert_eq!(cluster.probe("s1", NEW).await, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn right_after_the_answer_the_own_copy_can_lack_the_save() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put_and_kill("s1", "after-answer").await, 200);
    cluster.fails("s1", TRAP).await;
    std::fs::remove_file(cluster.file("s1", "cred/passwd")).unwrap();
    cluster.fails("s1", SAVE).await;
    cluster.write_token("s1", NEW);
    cluster.starts("s1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_token_the_key_is_the_old_one_and_another_server_completes_the_put() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put_and_kill("s1", "after-token").await, 0);
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint(OLD)]));
    for server in ["s2", "s3"] {
        assert_eq!(cluster.put(server, OLD, NEW).await, 200);
    }
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint(NEW)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_by_itself_comes_back_by_itself() {
    let cluster = Cluster::start(unpinned()).await;
    cluster.post("/nodes/s2/kill", json!({})).await;
    cluster
        .until(|state| state["servers"]["s2"]["unit"]["failures"] == 1 && state["servers"]["s2"]["phase"] == "ready")
        .await;
    assert_eq!(cluster.probe("s2", OLD).await, 405);
}
