//! The exact output of several commands.

use anyhow::Result;
use e2e::mask_output;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::{self, Raw, bare, shell};

/// Creates tokens with fixed ids, so that the output can be compared.
async fn create_tokens() -> Result<()> {
    let plane = bare().await?;
    let api = cluster::secrets(plane, "kube-system").await?;
    for raw in [
        Raw::new("words1")
            .with("auth-extra-groups", "system:bootstrappers:gpu")
            .with("description", "rack 7"),
        Raw::new("words2")
            .with("auth-extra-groups", "system:bootstrappers")
            .with("token-id", "words1"),
        Raw::new("words3")
            .with("token-secret", "f395accd246ae52d")
            .with("usage-bootstrap-signing", "true"),
        Raw::new("words4").with("usage-bootstrap-authentication", "yes"),
    ] {
        raw.create(plane).await?;
        let label = Patch::Merge(json!({ "metadata": { "labels": { "test": "words" } } }));
        let name = format!("bootstrap-token-{}", raw.id);
        api.patch(&name, &PatchParams::default(), &label).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_list_verify_revoke_extend_and_kubeconfig() -> Result<()> {
    let shell = shell(bare().await?).await?;
    create_tokens().await?;
    let run = async |args: &[&str]| {
        let outcome = shell.bootstrap_token(args).run().await?;
        anyhow::Ok(mask_output(&outcome.to_string()))
    };
    insta::assert_snapshot!(run(&["list", "-l", "test=words"]).await?, @r#"
        $ kubectl-bootstrap_token list -l test=words
        ID       TTL       EXPIRES   USAGES                   GROUPS                     DESCRIPTION   STATE
        words1   <never>   <never>   authentication           system:bootstrappers:gpu   rack 7        active
        words2   <never>   <never>   authentication           system:bootstrappers       <none>        broken: token-id is not the id in the Secret's name; group "system:bootstrappers" is a group of every token and must not be named
        words3   <never>   <never>   authentication,signing   <none>                     <none>        active: its secret is published in documentation
        words4   <never>   <never>   <none>                   <none>                     <none>        broken: usage-bootstrap-authentication is not exactly "true"
        ----- stderr -----
        ----- exit status: 0 -----
        "#);
    insta::assert_snapshot!(run(&["verify", "words1"]).await?, @r#"
        $ kubectl-bootstrap_token verify words1
        token words1 (AAAAAAAAAA): accepted
          user       system:bootstrap:words1
          groups     system:bootstrappers, system:bootstrappers:gpu, system:authenticated
          join       kubeadm join: no, because its usages do not include signing; no binding allows it to request a certificate
          join       kubelet bootstrap: no, because no binding allows it to request a certificate
        ----- stderr -----
        ----- exit status: 0 -----
        "#);
    insta::assert_snapshot!(run(&["verify", "words2"]).await?, @r#"
        $ kubectl-bootstrap_token verify words2
        token words2 (AAAAAAAAAA): rejected
          join       kubeadm join: no, because the API server rejects the token
          join       kubelet bootstrap: no, because the API server rejects the token
          reason     token-id is not the id in the Secret's name
          reason     group "system:bootstrappers" is a group of every token and must not be named
        ----- stderr -----
        ----- exit status: 1 -----
        "#);
    insta::assert_snapshot!(run(&["revoke", "words1", "words4", "--dry-run"]).await?, @r#"
        $ kubectl-bootstrap_token revoke words1 words4 --dry-run
        token words1 revoked (dry run)
        token words4 revoked (dry run)
        ----- stderr -----
        To be revoked: 2 bootstrap tokens
          words1   <never>   rack 7
          words4   <never>
        Nodes that have joined are not affected: they have their own certificates.
        Nodes that are rebuilt or reset, or whose certificate expired while they were off, need another token to join.
        Certificates that were issued to holders of the token are valid until they expire: Kubernetes cannot revoke them.
        ----- exit status: 0 -----
        "#);
    insta::assert_snapshot!(run(&["revoke", "-l", "test=words"]).await?, @r#"
        $ kubectl-bootstrap_token revoke -l test=words
        ----- stderr -----
        To be revoked: 4 bootstrap tokens
          words1   <never>   rack 7
          words2   <never>
          words3   <never>
          words4   <never>
        Nodes that have joined are not affected: they have their own certificates.
        Nodes that are rebuilt or reset, or whose certificate expired while they were off, need another token to join.
        Certificates that were issued to holders of the token are valid until they expire: Kubernetes cannot revoke them.
        error: this changes credentials, and there is no terminal to confirm it on
        hint: pass --yes to continue, or --dry-run to print the plan
        ----- exit status: 1 -----
        "#);
    insta::assert_snapshot!(run(&["extend", "words1", "--ttl", "2d"]).await?, @r#"
        $ kubectl-bootstrap_token extend words1 --ttl 2d
        ----- stderr -----
        error: --ttl 48h0m0s is more than 24h: anyone who has the token can add nodes for that long
        hint: to allow it, pass --allow-long
        ----- exit status: 2 -----
        "#);
    insta::assert_snapshot!(run(&["kubeconfig", "words4"]).await?, @r#"
        $ kubectl-bootstrap_token kubeconfig words4
        ----- stderr -----
        error: the API server would reject token words4: usage-bootstrap-authentication is not exactly "true"
        ----- exit status: 1 -----
        "#);
    Ok(())
}
