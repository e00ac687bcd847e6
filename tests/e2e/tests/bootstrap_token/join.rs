//! Whether a node can join with a token: the results of `verify` and `status`, and the warnings of `create`.

use anyhow::{Result, ensure};
use e2e::{Shell, until};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use test_cluster::{Fault, FaultProxy, Kubeconfig, On, TestEnvironment, Upstream};

use crate::cluster::{self, Printed, bare, by_kubeadm, data_of, shell};

/// A proxy in front of a cluster of kubeadm, and a shell whose kubeconfig leads through it.
async fn behind_proxy() -> Result<(FaultProxy, Shell)> {
    let plane = by_kubeadm().await?;
    let proxy = FaultProxy::start([Upstream::admin_of(plane)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(plane.kubeconfig())?);
    Ok((proxy, Shell::new(TestEnvironment::shared().await?, &kubeconfig)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_token_of_kubeadm_is_good_for_both_ways() -> Result<()> {
    let shell = shell(by_kubeadm().await?).await?;
    let created = shell.bootstrap_token(["create"]).run().await?.expect(0)?;
    ensure!(!created.stderr.contains("Warning"), "{created}");
    let token = Printed::read(&created.stdout)?;
    // `create` has waited for the signature.
    let args = ["verify", &token.id, "--for", "kubeadm"];
    let verified = shell.bootstrap_token(args).run().await?.expect(0)?;
    let status = shell.bootstrap_token(["status", &token.id]).run().await?.expect(0)?;
    for way in ["kubeadm join: yes\n", "kubelet bootstrap: yes\n"] {
        ensure!(
            verified.stdout.contains(way) && status.stdout.contains(way),
            "{verified}\n{status}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_signing_is_good_for_the_kubelet_only() -> Result<()> {
    let shell = shell(by_kubeadm().await?).await?;
    let token = cluster::create(&shell, &["--usages", "authentication"]).await?;
    let args = ["verify", &token.id, "--for", "kubeadm"];
    let verified = shell.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(
        verified
            .stdout
            .contains("kubeadm join: no, because its usages do not include signing\n"),
        "{verified}"
    );
    ensure!(verified.stdout.contains("kubelet bootstrap: yes\n"), "{verified}");
    for args in [&["verify", &token.id][..], &["verify", &token.id, "--for", "kubelet"]] {
        shell.bootstrap_token(args).run().await?.expect(0)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_on_stdin_is_checked_by_its_signature() -> Result<()> {
    let shell = shell(by_kubeadm().await?).await?;
    let token = cluster::create(&shell, &[]).await?;
    until("the signature", async || {
        let args = ["verify", "--token-stdin", "--for", "kubeadm"];
        let verified = shell.bootstrap_token(args).stdin(token.text.clone()).run().await?;
        Ok((verified.code() == Some(0)).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn create_warns_without_cluster_info() -> Result<()> {
    let shell = shell(bare().await?).await?;
    let created = shell.bootstrap_token(["create"]).run().await?.expect(0)?;
    ensure!(
        created
            .stderr
            .contains("Warning: kubeadm join: no, because ConfigMap kube-public/cluster-info not found"),
        "{created}"
    );
    // A token for the kubelet needs none.
    let args = ["create", "--usages", "authentication"];
    let created = shell.bootstrap_token(args).run().await?.expect(0)?;
    ensure!(!created.stderr.contains("cluster-info"), "{created}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_warns_about_an_unsigned_cluster_info_and_another_authority() -> Result<()> {
    let (proxy, shell) = behind_proxy().await?;
    // The proxy has an authority of its own, so the kubeconfig differs from cluster-info.
    let created = shell.bootstrap_token(["create"]).run().await?.expect(0)?;
    ensure!(
        created.stderr.contains(
            "Warning: kubeadm join: unknown, because kube-public/cluster-info has another certificate authority than the kubeconfig in use"
        ),
        "{created}"
    );
    let kubeconfig = "clusters:\n- cluster: {server: \"https://10.9.8.7:6443\"}\n  name: \"\"\n";
    for (id, signature, reason) in [
        ("unsig1", None, "kube-public/cluster-info is not signed with any token"),
        (
            "stale1",
            Some("e30..x"),
            "the signature in kube-public/cluster-info is not that of its present content",
        ),
    ] {
        let mut data = json!({ "kubeconfig": kubeconfig });
        if let Some(signature) = signature {
            data[format!("jws-kubeconfig-{id}")] = json!(signature);
        }
        let metadata =
            json!({ "name": "cluster-info", "namespace": "kube-public", "uid": "u", "resourceVersion": "1" });
        let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data }).to_string();
        proxy.heal();
        proxy.plan(
            On::request().path("*/configmaps/cluster-info").always(),
            Fault::Say { status: 200, body },
        );
        let create = shell.bootstrap_token(["create", "--token-stdin"]);
        let created = create.stdin(format!("{id}.0a1b2c3d4e5f6g7h")).run().await?.expect(0)?;
        ensure!(
            created.stderr.contains(&format!("kubeadm join: no, because {reason}")),
            "{created}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_on_k3s_and_rke2_prints_the_token_that_their_agents_take() -> Result<()> {
    let (proxy, shell) = behind_proxy().await?;
    let hash = Sha256::digest(proxy.ca_pem())
        .iter()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    for (build, name) in [("k3s1", "k3s"), ("rke2r1", "rke2")] {
        proxy.heal();
        let body = json!({
            "major": "1", "minor": "33", "gitVersion": format!("v1.33.3+{build}"), "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        });
        let version = Fault::Say {
            status: 200,
            body: body.to_string(),
        };
        proxy.plan(On::request().path("*/version").always(), version);
        let created = shell.bootstrap_token(["create"]).run().await?.expect(0)?;
        ensure!(
            !created.stderr.contains("Warning") && !created.stderr.contains("hint"),
            "{created}"
        );
        let text = created.stdout.strip_prefix(&format!("K10{hash}::"));
        let token = Printed::read(text.unwrap_or_default())?;
        let data = data_of(by_kubeadm().await?, &token.id).await?;
        ensure!(
            data["auth-extra-groups"] == format!("system:bootstrappers:{name}:default-node-token"),
            "{}",
            data["auth-extra-groups"]
        );
        let verified = shell
            .bootstrap_token(["verify", "--token-stdin"])
            .stdin(created.stdout.clone())
            .run()
            .await?;
        ensure!(verified.stdout.contains(&format!("token {}", token.id)), "{verified}");
        let status = shell.bootstrap_token(["status", &token.id]).run().await?.expect(0)?;
        ensure!(
            status.stdout.contains(&format!("{name} agent: ")) && !status.stdout.contains("kubeadm"),
            "{status}"
        );
    }
    Ok(())
}
