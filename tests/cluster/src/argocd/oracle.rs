//! What Argo CD itself would write: `argocd admin cluster generate-spec`, which asks nobody.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{ArgoCd, environment};
use crate::kubeconfig::Kubeconfig;

impl ArgoCd {
    /// The Secret for a context of a kubeconfig with this token, as `argocd admin cluster generate-spec` prints it: with
    /// `stringData`, and without a namespace. `flags` are that command's: `--name`, `--shard`, `--label`. Blocks.
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
