//! `cargo xtask bench`: what the plugins cost, beside what kubectl and kubeadm cost for the like.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cargo::{PROGRAMS, built, cargo, root, target_dir};
use crate::dist::Shipped;
use crate::step::Steps;

/// Measure size, start, listing and rotation against kubectl and kubeadm on a real control plane
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// What to measure; everything if nothing is named
    #[arg(value_parser = ["size", "start", "list", "rotation", "bootstrap-token", "argocd-rancher", "server-token"])]
    what: Vec<String>,

    /// How many tokens there are for each listing (registration tokens: ten to a namespace)
    #[arg(long, default_value_t = 10_000)]
    tokens: u32,

    /// How many clusters Argo CD's tokens are rotated for
    #[arg(long, default_value_t = 200)]
    clusters: u32,

    /// How many pairs of runs each comparison takes
    #[arg(long, default_value_t = 10)]
    pairs: u32,
}

/// Runs it.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    let steps = Steps::begin();
    let shipped = Shipped::here()?;
    // One at a time: together, each would get the features that another one needs.
    for plugin in ["kubectl-crt", "kubectl-bootstrap-token", "kubectl-argocd-rancher"] {
        let title = format!("build {plugin} as it is shipped, for {}", shipped.target);
        steps.run(&title, &mut shipped.build(plugin))?;
    }
    steps.run("build the bench", &mut cargo(PROGRAMS))?;
    let plain = |name: &str| Ok::<_, anyhow::Error>(built("debug", "bench")?.with_file_name(format!("plain-{name}")));
    let (kubectl, kubeadm) = (plain("kubectl")?, plain("kubeadm")?);
    for (name, program) in [("kubectl", &kubectl), ("kubeadm", &kubeadm)] {
        let title = format!("build a plain {name} to compare with");
        steps.run(&title, &mut go_build(name, program))?;
    }

    let mut measure = Command::new(built("debug", "private-network")?);
    measure
        .arg(built("debug", "bench")?)
        .arg("--plugins")
        .arg(target_dir()?.join(shipped.profile()))
        .arg("--kubectl")
        .arg(kubectl)
        .arg("--kubeadm")
        .arg(kubeadm)
        .args(["--tokens", &bench.tokens.to_string()])
        .args(["--clusters", &bench.clusters.to_string()])
        .args(["--pairs", &bench.pairs.to_string()])
        .args(&bench.what)
        .current_dir(root());
    steps.become_one("bench", &mut measure)
}

/// A program of Kubernetes alone, of the version that the control plane has: the multi-call binary would start more slowly than one does.
fn go_build(name: &str, program: &Path) -> Command {
    let mut build = Command::new("go");
    build
        .args(["-C", "tests/controlplane", "build", "-ldflags", "-s -w", "-o"])
        .arg(program)
        .arg(format!("k8s.io/kubernetes/cmd/{name}"))
        .envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local")])
        .current_dir(root());
    build
}
