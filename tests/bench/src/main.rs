//! Measures the plugins, compared with kubectl and kubeadm. Prints tables and writes no files. `cargo xtask bench`
//! builds it and runs it.

mod argocd_rancher;
mod bootstrap_token;
mod cost;
mod figures;
mod list;
mod rotation;
mod server_token;
mod start;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use test_cluster::{TestEnvironment, TokenStorage};

/// The largest size of a released binary.
const MOST_MIB: f64 = 8.0;

/// The number of rotations of a cluster.
const ROTATIONS: u32 = 5;

/// The file names of the plugins.
const PLUGINS: [&str; 3] = ["kubectl-crt", "kubectl-bootstrap_token", "kubectl-argocd_rancher"];

/// Measure the plugins against kubectl and kubeadm
#[derive(Parser)]
struct Bench {
    /// What to measure. Measures everything by default
    #[arg(value_enum)]
    what: Vec<What>,

    /// The directory of the plugins in release form
    #[arg(long)]
    plugins: PathBuf,

    /// A plain kubectl
    #[arg(long)]
    kubectl: PathBuf,

    /// A plain kubeadm
    #[arg(long)]
    kubeadm: PathBuf,

    /// The number of tokens for each listing
    #[arg(long)]
    tokens: u32,

    /// The number of clusters whose Argo CD tokens are rotated
    #[arg(long)]
    clusters: usize,

    /// The number of pairs of runs in each comparison
    #[arg(long)]
    pairs: u32,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum What {
    Size,
    Start,
    List,
    Rotation,
    BootstrapToken,
    ArgocdRancher,
    ServerToken,
}

#[tokio::main]
async fn main() -> Result<()> {
    let bench = Bench::parse();
    let wanted = |what| bench.what.is_empty() || bench.what.contains(&what);
    let plugins = PLUGINS.map(|name| bench.plugins.join(name));
    let [crt, bootstrap_token, argocd_rancher] = &plugins;
    let fits = !wanted(What::Size) || size(&plugins)?;
    if wanted(What::Start) {
        let mut kubectls = vec![("kubectl v1.36.3".to_owned(), bench.kubectl.clone())];
        kubectls.extend(of_the_system());
        start::start(&plugins, &kubectls, bench.pairs)?;
    }
    let environment = Box::new(Box::pin(TestEnvironment::new()).await?);
    for storage in TokenStorage::ALL {
        if wanted(What::List) {
            let listing = list::list(&environment, storage, crt, &bench.kubectl, bench.tokens, bench.pairs);
            Box::pin(listing).await?;
        }
        if wanted(What::Rotation) {
            Box::pin(rotation::rotation(&environment, storage, crt, ROTATIONS)).await?;
        }
    }
    if wanted(What::BootstrapToken) {
        let tokens = bootstrap_token::run(&environment, bootstrap_token, &bench.kubeadm, bench.tokens, bench.pairs);
        Box::pin(tokens).await?;
    }
    if wanted(What::ArgocdRancher) {
        let rotation = argocd_rancher::run(&environment, argocd_rancher, &bench.kubectl, bench.clusters);
        Box::pin(rotation).await?;
    }
    if wanted(What::ServerToken) {
        Box::pin(server_token::run(&environment, bootstrap_token, &bench.kubectl)).await?;
    }
    anyhow::ensure!(fits, "a plugin is larger than {MOST_MIB} MiB");
    Ok(())
}

/// Whether all binaries are small enough.
fn size(plugins: &[PathBuf]) -> Result<bool> {
    let mut fits = true;
    let mut rows = figures::table(&["size", &format!("at most {MOST_MIB} MiB")]);
    for plugin in plugins {
        let mib = std::fs::metadata(plugin)?.len() as f64 / f64::from(1 << 20);
        fits &= mib <= MOST_MIB;
        let name = plugin.file_name().unwrap_or_default().to_string_lossy();
        rows.add_row([name.into_owned(), format!("{mib:.1} MiB")]);
    }
    anstream::println!("\n{rows}");
    Ok(fits)
}

/// The installed kubectl, if any.
fn of_the_system() -> Option<(String, PathBuf)> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("kubectl"))
        .find(|file| file.is_file())?;
    Some(("installed kubectl".to_owned(), found))
}
