//! `release`: packs the built plugins, for `cargo xtask dist`.

use std::fs;
use std::path::{Path, PathBuf};

use anstream::println;
use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use release::{PLUGINS, Platform, Plugin, Release, archive};

/// Pack a release
#[derive(clap::Parser)]
enum Command {
    /// Print the package of each plugin
    Packages,
    /// Pack the archive of each plugin and print the checksums like sha256sum
    Pack {
        /// The Rust target of the programs
        #[arg(long)]
        target: String,
        /// The directory with the built programs
        #[arg(long)]
        programs: PathBuf,
        /// The directory with the man pages
        #[arg(long)]
        man_pages: PathBuf,
        /// The directory for the archives
        #[arg(long)]
        archives: PathBuf,
    },
    /// Write the manifest of each plugin with the checksums of the archives
    Manifests {
        /// The directory with the archives
        #[arg(long)]
        archives: PathBuf,
        /// The directory for the manifests. The checksums of other platforms are taken from existing manifests
        #[arg(long)]
        into: PathBuf,
    },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Packages => packages(),
        Command::Pack {
            target,
            programs,
            man_pages,
            archives,
        } => return pack(&target, &programs, &man_pages, &archives),
        Command::Manifests { archives, into } => return manifests(&archives, &into),
    }
    Ok(())
}

fn packages() {
    for plugin in PLUGINS {
        println!("{}", plugin.package());
    }
}

fn pack(target: &str, programs: &Path, man_pages: &Path, archives: &Path) -> Result<()> {
    let platform = Platform::of_target(target).with_context(|| format!("there are no releases for {target}"))?;
    let release = Release::current();
    fs::create_dir_all(archives).with_context(|| format!("make {}", archives.display()))?;
    for plugin in PLUGINS {
        let program = programs.join(plugin.binary());
        let program = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
        let man_pages = man_pages_of(plugin, man_pages)?;
        let packed = archive::pack(plugin, &program, &man_pages, archive::Compression::best())?;
        let file = archives.join(release.archive(plugin, platform));
        fs::write(&file, &packed).with_context(|| format!("write {}", file.display()))?;
        println!("{}  {}", archive::sum(&packed), file.display());
    }
    Ok(())
}

/// The man pages of a plugin: `kubectl-crt.1`, and one for each command.
fn man_pages_of(plugin: &Plugin, folder: &Path) -> Result<Vec<archive::ManPage>> {
    let of_commands = format!("{}-", plugin.binary());
    let of_plugin = format!("{}.1", plugin.binary());
    let mut pages = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == of_plugin || name.starts_with(&of_commands) {
            pages.push((name, fs::read(entry.path())?));
        }
    }
    ensure!(
        !pages.is_empty(),
        "no man pages of {} in {}",
        plugin.name,
        folder.display()
    );
    Ok(pages)
}

fn manifests(archives: &Path, into: &Path) -> Result<()> {
    let release = Release::current();
    for plugin in PLUGINS {
        let file = into.join(format!("{}.yaml", plugin.name));
        let before = fs::read_to_string(&file).ok();
        let sums = release.sums(plugin, Some(archives), before.as_deref())?;
        fs::write(&file, release.manifest(plugin, &sums)?).with_context(|| format!("write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
