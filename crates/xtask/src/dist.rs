//! `cargo xtask dist`: the archives of a release, as far as this machine can build them, and the manifests for krew.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cargo::{built, c_compiler, cargo, has_c_compiler, has_target, host, root, target_dir};
use crate::docs;
use crate::step::Steps;

/// Where the archives are put, with manifests that know only them.
const ARCHIVES: &str = "target/dist-archives";
/// Where krew looks for manifests when the directory above is an index.
const INDEX: &str = "krew/plugins";

/// Build the archive of each plugin for this machine, and manifests by which krew can install them
#[derive(clap::Args)]
pub(crate) struct Dist {
    /// Also write krew/plugins, with the sums of all archives of this version in target/dist-archives
    #[arg(long)]
    manifests: bool,
}

/// Runs it.
pub(crate) fn run(dist: &Dist) -> Result<()> {
    let steps = Steps::begin();
    steps.run("build what packs", &mut cargo(["build", "-p", "release"]))?;
    let release = || Ok::<_, anyhow::Error>(Command::new(built("debug", "release")?));

    let shipped = Shipped::here()?;
    // One at a time: together, each would get the features that another one needs.
    for package in packages(release()?)? {
        let title = format!("build {package} for {}", shipped.target);
        steps.run(&title, &mut shipped.build(&package))?;
    }

    let man_pages = target_dir()?.join("man-pages");
    docs::write_man_pages(&steps, &man_pages)?;
    let mut pack = release()?;
    pack.args([
        "pack",
        "--target",
        &shipped.target,
        "--archives",
        ARCHIVES,
        "--programs",
    ])
    .arg(target_dir()?.join(shipped.profile()))
    .arg("--man-pages")
    .arg(man_pages)
    .current_dir(root());
    steps.run("pack", &mut pack)?;
    for into in [ARCHIVES].into_iter().chain(dist.manifests.then_some(INDEX)) {
        let mut manifests = release()?;
        manifests
            .args(["manifests", "--archives", ARCHIVES, "--into", into])
            .current_dir(root());
        steps.run("write manifests", &mut manifests)?;
    }
    Ok(())
}

/// Where Rust links with LLD.
const LINKED_BY_LLD: &str = "x86_64-unknown-linux-gnu";
/// Identical functions once, and no index for backtraces, which say nothing in a program without symbols: 0.25 MiB.
const SMALLER: &str = "link-arg=-Wl,--icf=all,--no-eh-frame-hdr";

/// How a plugin is built that is to be shipped.
pub(crate) struct Shipped {
    /// On Linux without the C library of the system, where that target is installed; else this machine.
    pub(crate) target: String,
    host: bool,
}

impl Shipped {
    /// As this machine can.
    pub(crate) fn here() -> Result<Self> {
        let host = host()?;
        let fixed = host.replace("-linux-gnu", "-linux-musl");
        let other = fixed != host && has_target(&fixed);
        // ring is partly written in C.
        ensure!(
            !other || has_c_compiler(&fixed),
            "Rust's target {fixed} is installed, but {} is not, which compiles C for it: install it (Debian: musl-tools), \
             name another compiler in TARGET_CC, or remove the target",
            c_compiler(&fixed)
        );
        Ok(Self {
            target: if other { fixed } else { host },
            host: !other,
        })
    }

    /// Builds one.
    pub(crate) fn build(&self, package: &str) -> Command {
        let mut build = cargo(["rustc", "--locked", "--profile", "dist", "-p", package]);
        // kubectl finds a plugin of several words by underscores.
        let program = package.strip_prefix("kubectl-").unwrap_or(package).replace('-', "_");
        let program = format!("kubectl-{program}");
        build.args(["--bin", &program]);
        if !self.host {
            build.args(["--target", &self.target]);
        }
        if self.target == LINKED_BY_LLD {
            build.args(["--", "-C", SMALLER]);
        }
        build
    }

    /// The directory that they are built into, below the target directory.
    pub(crate) fn profile(&self) -> String {
        if self.host {
            "dist".to_owned()
        } else {
            format!("{}/dist", self.target)
        }
    }
}

/// What there is to be built, which only the program knows that packs it.
fn packages(mut release: Command) -> Result<Vec<String>> {
    let out = release
        .arg("packages")
        .output()
        .context("ask which packages are released")?;
    let text = String::from_utf8(out.stdout)?;
    Ok(text.lines().map(str::to_owned).collect())
}
