//! What the plugin costs, beside what kubectl costs for the like. Prints tables and writes nothing; `cargo xtask bench`
//! builds what it needs and runs it.

mod cost;
mod figures;
mod list;
mod rotation;
mod start;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;
use testbed::{Bed, Era};

/// The largest binary that is shipped.
const MOST_MIB: f64 = 8.0;

/// How often a cluster is rotated.
const ROTATIONS: u32 = 5;

/// Measure the plugin against kubectl
#[derive(Parser)]
struct Bench {
    /// What to measure; everything if nothing is named
    #[arg(value_enum)]
    what: Vec<What>,

    /// The plugin as it is shipped
    #[arg(long)]
    plugin: PathBuf,

    /// A plain kubectl
    #[arg(long)]
    kubectl: PathBuf,

    /// How many registration tokens there are for the listing
    #[arg(long)]
    tokens: u32,

    /// How many pairs of runs each comparison takes
    #[arg(long)]
    pairs: u32,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum What {
    Size,
    Start,
    List,
    Rotation,
}

#[tokio::main]
async fn main() -> Result<()> {
    let bench = Bench::parse();
    let wanted = |what| bench.what.is_empty() || bench.what.contains(&what);
    let mut fits = true;
    if wanted(What::Size) {
        fits = size(&bench.plugin)?;
    }
    if wanted(What::Start) {
        let mut kubectls = vec![("kubectl v1.36.3".to_owned(), bench.kubectl.clone())];
        kubectls.extend(of_the_system());
        start::start(&bench.plugin, &kubectls, bench.pairs)?;
    }
    let bed = Box::new(Box::pin(Bed::new()).await?);
    for era in Era::ALL {
        if wanted(What::List) {
            let listing = list::list(&bed, era, &bench.plugin, &bench.kubectl, bench.tokens, bench.pairs);
            Box::pin(listing).await?;
        }
        if wanted(What::Rotation) {
            Box::pin(rotation::rotation(&bed, era, &bench.plugin, ROTATIONS)).await?;
        }
    }
    anyhow::ensure!(fits, "the plugin is larger than {MOST_MIB} MiB");
    Ok(())
}

fn size(plugin: &Path) -> Result<bool> {
    let mib = std::fs::metadata(plugin)?.len() as f64 / f64::from(1 << 20);
    anstream::println!("\n{}: {mib:.1} MiB (at most {MOST_MIB})", plugin.display());
    Ok(mib <= MOST_MIB)
}

/// The kubectl that is installed here, if one is.
fn of_the_system() -> Option<(String, PathBuf)> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("kubectl"))
        .find(|file| file.is_file())?;
    Some(("installed kubectl".to_owned(), found))
}
