//! `kubectl crt verify`: proofs of what an agent runs with, and the answer about one given token.

use anyhow::Result;
use e2e::{Desk, Outcome, Story, shown};
use insta::{allow_duplicates, assert_snapshot};
use rstest::rstest;
use serde_json::Value;
use testbed::{Era, Registration};

use crate::hands;

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_agent_is_proven(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "lyon").await?;
    let seen = shown(&story.desk.crt(["verify", &story.cluster.id]).run().await?.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify c-id123
    + secret    Secret cattle-credentials-AAAAAAAAAA holds BBBBBBBBBB
    + pods      1 of 1 pods of the agent run
    + tunnels   the agent that connected last did so with BBBBBBBBBB, and opens its second tunnel with it
    + accepted  Rancher accepts BBBBBBBBBB as a token of cluster c-id123
    + call      a fresh call through Rancher was answered (Kubernetes <version>)
    proven: the agent of c-id123 runs with BBBBBBBBBB, and it is alive
    ----- stderr -----
    ----- exit status: 0 -----
    "); }
    let document = story
        .desk
        .crt(["verify", &story.cluster.id, "-o", "json"])
        .run()
        .await?
        .expect(0)?;
    let document: Value = serde_json::from_str(&document.stdout)?;
    let token = crate::state::fingerprint(&hands::values(&story).await?["system"]);
    assert_eq!(document["fingerprint"], Value::String(token), "{document:#}");
    assert_eq!(document["proven"], Value::Bool(true), "{document:#}");
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_token_is_dead_is_not_proven_however_well_it_looks(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "lyon").await?;
    // Its tunnels stay open: Rancher asks for a token only when one is opened.
    hands::replace_system(&story, &"x7k2p".repeat(10)).await?;
    let outcome = story.desk.crt(["verify", &story.cluster.id]).run().await?.expect(1)?;
    let seen = shown(&outcome.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify c-id123
    + secret    Secret cattle-credentials-AAAAAAAAAA holds BBBBBBBBBB
    + pods      1 of 1 pods of the agent run
    + tunnels   the agent that connected last did so with BBBBBBBBBB, and opens its second tunnel with it
    x accepted  Rancher refuses BBBBBBBBBB
    + call      a fresh call through Rancher was answered (Kubernetes <version>)
    not proven: see above what of c-id123 is not as it should be
    ----- stderr -----
    ----- exit status: 1 -----
    "); }
    Ok(())
}

/// Asks about a token by standard input.
async fn ask(desk: &Desk, args: &[&str], token: &str) -> Result<Outcome> {
    let args = ["verify", "--token-stdin"].iter().chain(args);
    desk.crt(args).stdin(format!("{token}\n")).run().await
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_given_token_is_alive_or_dead_and_of_one_cluster(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "lyon").await?;
    let other = story
        .rancher
        .register_as(&Registration::imported("bonn").quick())
        .await?;
    let (id, token) = (
        story.cluster.id.as_str(),
        hands::values(&story).await?["system"].clone(),
    );
    let desk = &story.desk;

    let seen = shown(&ask(desk, &[], &token).await?.expect(0)?.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify --token-stdin
    + accepted  Rancher accepts AAAAAAAAAA as a token of cluster c-id123
    AAAAAAAAAA is alive
    ----- stderr -----
    ----- exit status: 0 -----
    "); }
    let cluster = ask(desk, &["-o", "jsonpath={.cluster} {.proven}"], &token)
        .await?
        .expect(0)?;
    assert_eq!(cluster.stdout, format!("{id} true"));
    ask(desk, &[id], &token).await?.expect(0)?;
    let of_another = ask(desk, &[&other.id], &token).await?.expect(1)?;
    let sentence = format!("but as a token of cluster {id}");
    assert!(of_another.stdout.contains(&sentence), "{of_another}");

    desk.crt(["rotate", id, "--yes", "--settle", "1s"])
        .run()
        .await?
        .expect(0)?;
    let seen = shown(&ask(desk, &[], &token).await?.expect(1)?.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify --token-stdin
    x accepted  Rancher refuses AAAAAAAAAA
    AAAAAAAAAA is not proven to be alive
    ----- stderr -----
    ----- exit status: 1 -----
    "); }
    ask(desk, &[], &hands::values(&story).await?["system"])
        .await?
        .expect(0)?;
    let seen = shown(&ask(desk, &[], "").await?.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify --token-stdin
    ----- stderr -----
    error: nothing was given on stdin
    ----- exit status: 2 -----
    "); }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_or_a_token_must_be_given() -> Result<()> {
    let story = Story::begin(Era::Secret, "lyon").await?;
    let outcome = story.desk.crt(["verify"]).run().await?.expect(2)?;
    assert_eq!(outcome.stdout, "", "{outcome}");
    // From the management cluster's own kubeconfig nothing leads to the agent.
    let verify = ["verify", &story.cluster.id, "--context", "management"];
    let seen = shown(&story.desk.crt(verify).run().await?.expect(1)?.to_string());
    allow_duplicates! { assert_snapshot!(seen, @r"
    $ kubectl-crt verify c-id123 --context management
    ----- stderr -----
    error: the downstream cluster c-id123 cannot be reached: the context of the management side is not one of Rancher's, and no other way to it was given
    hint: give a context of cluster c-id123 itself with --downstream-context
    hint: or use a context of Rancher (…/k8s/clusters/local) with --context
    ----- exit status: 1 -----
    "); }
    Ok(())
}
