//! `argocd admin cluster generate-spec`, which prints the Secret that Argo CD would write. It needs no server.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{ArgoCd, environment};
use crate::kubeconfig::Kubeconfig;

impl ArgoCd {
    /// The Secret that `argocd admin cluster generate-spec` prints for a context of a kubeconfig with this token. It
    /// has `stringData` and no namespace. `flags` are flags of that command: `--name`, `--shard`, `--label`. Blocks.
    pub fn generate_spec(&self, kubeconfig: &Kubeconfig, context: &str, token: &str, flags: &[&str]) -> Result<Value> {
        let dir = tempfile::tempdir()?;
        let file = kubeconfig.write(dir.path().join("kubeconfig"))?;
        let out = Command::new(&self.binaries.argocd)
            .args([
                "admin",
                "cluster",
                "generate-spec",
                context,
                "--output=yaml",
                "--bearer-token",
                token,
            ])
            .arg("--kubeconfig")
            .arg(file)
            .args(flags)
            .env_clear()
            .envs(environment("argocd", dir.path()))
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .output()
            .context("run `argocd admin cluster generate-spec`")?;
        let (stdout, stderr) = (String::from_utf8(out.stdout)?, String::from_utf8_lossy(&out.stderr));
        ensure!(out.status.success(), "generate-spec {context} failed: {stdout}{stderr}");
        serde_saphyr::from_str(&stdout).with_context(|| format!("understand {stdout}"))
    }
}
