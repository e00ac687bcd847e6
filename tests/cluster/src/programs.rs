//! The programs that the tests build from source: the control plane from Kubernetes, Argo CD, and krew.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::argocd::ARGOCD;
use crate::go_module::GoModule;

const CONTROLPLANE: GoModule = GoModule {
    name: "controlplane",
    dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../controlplane"),
    title: "the test control plane (Kubernetes and etcd from source)",
    first_time: "downloads 850 MB of Go modules and compiles for minutes",
    // Without these flags the version of Kubernetes is v0.0.0-master. They must match `k8s.io/kubernetes` in go.mod.
    linker_flags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
    packages: &["."],
    programs: &["controlplane"],
};

/// krew and its manifest validator.
pub const KREW: GoModule = GoModule {
    name: "krew",
    dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../krew"),
    title: "krew and its checker of manifests",
    first_time: "downloads 30 MB of Go modules and compiles for a minute or two",
    linker_flags: "-s -w",
    packages: &[
        "sigs.k8s.io/krew/cmd/krew",
        "sigs.k8s.io/krew/cmd/validate-krew-manifest",
    ],
    programs: &["krew", "validate-krew-manifest"],
};

/// Builds all programs unless they are cached. Inside the private network, Go cannot download anything.
pub fn build_all() -> Result<()> {
    for module in [CONTROLPLANE, ARGOCD, KREW] {
        module.ensure()?;
    }
    Ok(())
}

/// The programs of the control plane.
#[derive(Clone, Debug)]
pub struct Programs {
    controlplane: PathBuf,
    assets: Option<PathBuf>,
}

impl Programs {
    /// Finds the binary in the cache, or builds it with progress on standard error. Blocks for minutes the first time.
    /// Concurrent processes build it once.
    pub fn ensure() -> Result<Self> {
        let binary = CONTROLPLANE.ensure()?.join("controlplane");
        Ok(Self {
            controlplane: binary,
            assets: std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from),
        })
    }

    /// The multi-call binary of `private-network` and all components.
    pub fn controlplane(&self) -> &Path {
        &self.controlplane
    }

    /// Links the real `kubectl` into `dir`, under its own name, so that it finds plugins.
    pub fn link_kubectl(&self, dir: &Path) -> Result<PathBuf> {
        let link = dir.join("kubectl");
        let target = self.asset("kubectl").unwrap_or_else(|| self.controlplane.clone());
        std::os::unix::fs::symlink(&target, &link).with_context(|| format!("link {}", link.display()))?;
        Ok(link)
    }

    /// Links the real `kubeadm` into `dir`.
    pub fn link_kubeadm(&self, dir: &Path) -> Result<PathBuf> {
        let link = dir.join("kubeadm");
        std::os::unix::fs::symlink(&self.controlplane, &link).with_context(|| format!("link {}", link.display()))?;
        Ok(link)
    }

    /// The command that starts a component and ends it when its standard input is closed.
    pub(crate) fn guarded(&self, component: &str) -> Vec<OsString> {
        let what = self
            .asset(component)
            .map_or_else(|| component.into(), PathBuf::into_os_string);
        self.guarded_file(what)
    }

    /// The same for a program that is not part of Kubernetes.
    pub(crate) fn guarded_file(&self, program: impl Into<OsString>) -> Vec<OsString> {
        vec![self.controlplane.clone().into(), "guard".into(), program.into()]
    }

    fn asset(&self, name: &str) -> Option<PathBuf> {
        let path = self.assets.as_ref()?.join(name);
        matches!(name, "etcd" | "kube-apiserver" | "kubectl")
            .then_some(path)
            .filter(|path| path.exists())
    }
}
