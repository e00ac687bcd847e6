//! kubeadm as a reference: it lists created tokens, and trusts the cluster by them.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::until;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::cluster::{self, KUBEADM_GROUP, by_kubeadm, shell};

#[tokio::test(flavor = "multi_thread")]
async fn kubeadm_lists_created_tokens() -> Result<()> {
    let plane = by_kubeadm().await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &["--description", "rack 7"]).await?;
    let kubeconfig = shell.kubeconfig().to_string_lossy().into_owned();
    let list = ["token", "list", "-o", "json", "--kubeconfig", &kubeconfig];
    let listed = shell.kubeadm(list).run().await?.expect(0)?;
    let tokens = serde_json::Deserializer::from_str(&listed.stdout).into_iter::<Value>();
    let tokens: Vec<Value> = tokens.collect::<Result<_, _>>()?;
    let theirs = tokens.iter().find(|one| one["token"] == token.text.as_str());
    let theirs = theirs.context("kubeadm does not list it")?;
    ensure!(theirs["description"] == "rack 7");
    ensure!(
        theirs["usages"] == serde_json::json!(["authentication", "signing"]),
        "{}",
        theirs["usages"]
    );
    ensure!(
        theirs["groups"] == serde_json::json!([KUBEADM_GROUP]),
        "{}",
        theirs["groups"]
    );
    let ours = cluster::row(&shell, &token.id).await?;
    ensure!(
        theirs["expires"] == ours["expiresAt"],
        "{} and {}",
        theirs["expires"],
        ours["expiresAt"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeadm_join_accepts_a_created_token() -> Result<()> {
    let plane = by_kubeadm().await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &[]).await?;
    until("cluster-info to be signed", async || {
        let verified = shell
            .bootstrap_token(["verify", &token.id, "-o", "json"])
            .run()
            .await?
            .expect(0)?;
        let verified: Value = serde_json::from_str(&verified.stdout)?;
        Ok((verified["signature"] == "valid").then_some(()))
    })
    .await?;
    let address = plane.url().trim_start_matches("https://");
    let pin = pin(plane.authority().ca_pem())?;
    let join = [
        "join",
        "phase",
        "preflight",
        address,
        "--token",
        &token.text,
        "--discovery-token-ca-cert-hash",
        &pin,
        "--ignore-preflight-errors=all",
        "--node-name",
        "joining",
        "--cri-socket",
        "unix:///none.sock",
    ];
    let joined = shell.kubeadm(join).run().await?.expect(0)?;
    ensure!(joined.stdout.contains("Reading configuration from the"), "{joined}");
    Ok(())
}

/// The pin of a CA as kubeadm documents it: SHA-256 of the public key. The head of the `SubjectPublicKeyInfo` of a P-256
/// key is constant, so the key is found by it.
fn pin(pem: &str) -> Result<String> {
    const HEAD: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body)?;
    let at = der
        .windows(HEAD.len())
        .position(|window| window == HEAD)
        .context("no P-256 key")?;
    let digest = Sha256::digest(&der[at..at + HEAD.len() + 65]);
    Ok(digest
        .iter()
        .fold("sha256:".to_owned(), |pin, byte| pin + &format!("{byte:02x}")))
}
