//! How cargo is called, and where it puts what it builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Builds every program. All members are selected, though few are needed, because their features are unified over the
/// selection: so every dependency is the very one that the tests are built with, and is compiled once.
pub(crate) const PROGRAMS: [&str; 3] = ["build", "--workspace", "--bins"];

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// The cargo that runs us, in the root.
///
/// The variables that `cargo run` sets for our own package are removed. The build script of ring depends on them, so
/// ring and its dependents would be compiled again whenever cargo is called with other values.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    const ABOUT_US: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    for (name, _) in std::env::vars_os() {
        if ABOUT_US.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// A program that cargo has built: beside this one, or in the directory of another profile.
pub(crate) fn built(profile: &str, program: &str) -> Result<PathBuf> {
    let path = target_dir()?.join(profile).join(program);
    ensure!(path.is_file(), "{} was not built", path.display());
    Ok(path)
}

/// The directory that cargo builds into.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let this = std::env::current_exe().context("find out where cargo builds to")?;
    let target = this.ancestors().nth(2);
    Ok(target.context("this program is not where cargo puts one")?.to_owned())
}

/// Below the root by its relative path: cargo splits a runner at spaces, and a checkout may be anywhere.
pub(crate) fn relative(path: &Path) -> &Path {
    path.strip_prefix(root()).unwrap_or(path)
}

/// What this machine is called by rustc: `x86_64-unknown-linux-gnu`.
pub(crate) fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).arg("-vV").output().context("run rustc")?;
    let text = String::from_utf8(out.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// Whether the standard library of a target is installed.
pub(crate) fn has_target(target: &str) -> bool {
    let out = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .output();
    out.is_ok_and(|out| Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir())
}

/// The C compiler for a target, which the build scripts of C code look for when nothing in the environment names another
/// (cc 1.2): `x86_64-linux-musl-gcc`.
pub(crate) fn c_compiler(target: &str) -> String {
    format!("{}-gcc", target.replace("-unknown", ""))
}

/// Whether C code can be compiled for a target.
pub(crate) fn has_c_compiler(target: &str) -> bool {
    let named = [
        format!("CC_{target}"),
        format!("CC_{}", target.replace('-', "_")),
        "TARGET_CC".to_owned(),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    named.iter().any(|name| std::env::var_os(name).is_some())
        || std::env::split_paths(&path).any(|dir| dir.join(c_compiler(target)).is_file())
}
