//! `add` where Argo CD knows the cluster already.

use anyhow::Result;
use serde_json::json;

use crate::bench::{Bench, config, text, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_made_by_hand_is_adopted_and_keeps_everything_but_its_token() -> Result<()> {
    let bench = Bench::begin("malmo").await?;
    let old = testbed::User::admin().token;
    let login = json!({"bearerToken": old, "futureField": {"kept": true}, "tlsClientConfig": {"insecure": false, "serverName": "127.0.0.1", "caData": bench.ca_data()}});
    bench.by_hand("mine", &format!("{}/", bench.server()), &login).await?;

    // Without a terminal it is not asked, so nothing happens.
    let asked = bench.run(&["add", bench.id()]).run().await?.expect(1)?;
    assert!(
        asked.stderr.contains("will be replaced by a new token") || asked.stderr.contains("no terminal"),
        "{asked}"
    );
    assert!(bench.living().await?.is_empty());

    // What is not ours is not changed, and a wish to change it is not passed over.
    for flags in [["--name", "yours"], ["--label", "team=red"], ["--project", "red"]] {
        let args = [&["add", bench.id(), "--yes"], flags.as_slice()].concat();
        let refused = bench.run(&args).run().await?.expect(1)?;
        let says = format!("says otherwise than {}", flags[0]);
        assert!(refused.stderr.contains(&says), "{refused}");
    }

    let added = bench
        .run(&["add", bench.id(), "--yes", "-l", "team=blue"])
        .run()
        .await?
        .expect(0)?;
    assert!(added.stdout.starts_with("secret/mine adopted"), "{added}");
    // The admin's own token has been in there; it is alive, and not ours to end.
    assert!(
        added.stdout.contains("token-admin, which was there before, is alive"),
        "{added}"
    );
    let secret = bench.secret().await?;
    assert_eq!(json!(secret.metadata.labels)["team"], "blue");
    let annotations = json!(secret.metadata.annotations);
    assert_eq!(annotations["note"], "by hand");
    assert_eq!(text(&secret, "shard")?, "3");
    let mut wanted = login.clone();
    wanted["bearerToken"] = json!(token(&secret)?);
    assert_eq!(config(&secret)?, wanted);
    assert_ne!(token(&secret)?, old);
    assert_eq!(
        json!(bench.living().await?),
        json!([annotations["kubectl-rotation.github.io/token"]])
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_refused_by_name() -> Result<()> {
    let bench = Bench::begin("gent").await?;
    let login = json!({"bearerToken": "token-x:y", "tlsClientConfig": {"insecure": false}});
    for name in ["first", "second"] {
        bench.by_hand(name, &bench.server(), &login).await?;
    }
    let refused = bench.run(&["add", bench.id(), "--yes"]).run().await?.expect(1)?;
    assert!(refused.stderr.contains("first, second"), "{refused}");
    assert!(bench.living().await?.is_empty());
    let listed = bench.run(&["list"]).run().await?.expect(0)?;
    assert_eq!(listed.stdout.matches("duplicate").count(), 2, "{listed}");
    bench.delete("second").await?;

    // Another cluster that is called the same.
    bench.by_hand("third", "https://elsewhere.example.com", &login).await?;
    bench.delete("first").await?;
    let refused = bench
        .run(&["add", bench.id(), "--name", "third"])
        .run()
        .await?
        .expect(1)?;
    assert!(
        refused
            .stderr
            .contains("Secret third calls its cluster \"third\" already"),
        "{refused}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_argo_cd_logs_in_to_otherwise_is_not_touched() -> Result<()> {
    let bench = Bench::begin("lille").await?;
    let login = json!({"execProviderConfig": {"command": "argocd-k8s-auth"}, "tlsClientConfig": {"insecure": false}});
    bench.by_hand("exec", &bench.server(), &login).await?;
    let refused = bench.run(&["add", bench.id(), "--yes"]).run().await?.expect(1)?;
    assert!(
        refused.stderr.contains("Argo CD does not log in with a token there"),
        "{refused}"
    );
    assert_eq!(config(&bench.secret().await?)?, login);
    Ok(())
}
