//! `cargo xtask docs`: the pages that are generated from the source.
//!
//! The tests `reference` of the plugins write them, so that this program depends on no plugin.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cargo::cargo;
use crate::step::Steps;

/// Writes the pages in docs.
pub(crate) fn run() -> Result<()> {
    let steps = Steps::begin();
    steps.run("write the generated pages", tests().env("UPDATE_DOCS", "1"))
}

/// Writes the man pages. Fails where the pages in docs are out of date.
pub(crate) fn write_man_pages(steps: &Steps, folder: &Path) -> Result<()> {
    // Those of a command that exists no more.
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("delete {}", folder.display()))?;
    }
    steps.run("write the man pages", tests().env("MAN_PAGES", folder))
}

fn tests() -> Command {
    cargo([
        "test",
        "--workspace",
        "--quiet",
        "--test",
        "reference",
        "pages_are_up_to_date",
    ])
}
