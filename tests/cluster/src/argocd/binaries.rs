//! Argo CD's binary, its redis, and the manifests in its sources.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::go_module::GoModule;

pub(crate) const ARGOCD: GoModule = GoModule {
    name: "argocd",
    dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../argocd"),
    title: "Argo CD and an in-memory redis, from source",
    first_time: "downloads 300 MB of Go modules and compiles for minutes",
    // Without it the version of Argo CD is v99.99.99. It must match go.mod.
    linker_flags: "-s -w -X github.com/argoproj/argo-cd/v3/common.version=3.2.11",
    packages: &["github.com/argoproj/argo-cd/v3/cmd", "./redis"],
    programs: &["cmd", "redis"],
};
const MODULE: &str = "github.com/argoproj/argo-cd/v3";

/// The programs and the sources.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    /// All programs of Argo CD. `ARGOCD_BINARY_NAME` selects one.
    pub(crate) argocd: PathBuf,
    pub(crate) redis: PathBuf,
    source: PathBuf,
}

impl Binaries {
    /// Finds them in the cache, or builds them with progress on standard error. Blocks for minutes the first time.
    pub(crate) fn ensure() -> Result<Self> {
        let dir = ARGOCD.ensure()?;
        Ok(Self {
            argocd: dir.join("cmd"),
            redis: dir.join("redis"),
            source: ARGOCD.source_of(MODULE)?,
        })
    }

    /// A manifest of Argo CD: `crds/application-crd.yaml`.
    pub(crate) fn manifest(&self, path: &str) -> Result<Value> {
        read(&self.source.join("manifests").join(path))
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("understand {}", path.display()))
}
