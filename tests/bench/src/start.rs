//! The cost of a start, which every call of a plugin has in addition to that of kubectl.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cost::{MeasuredCommand, pairs};
use crate::figures::{COMPARISON, comparison, table};

/// Three short commands of each plugin, alternating with `kubectl version --client` of each kubectl.
pub(crate) fn start(plugins: &[PathBuf], kubectls: &[(String, PathBuf)], count: u32) -> Result<()> {
    for (name, kubectl) in kubectls {
        let theirs = MeasuredCommand::new(format!("{name} version --client"), kubectl, &["version", "--client"]);
        let mut rows = table(&COMPARISON);
        for ours in plugins.iter().flat_map(|plugin| short(plugin)) {
            let (a, b) = pairs(&ours, &theirs, count)?;
            comparison(&mut rows, (&theirs.name, b), (&ours.name, a));
        }
        anstream::println!("\n{rows}");
    }
    Ok(())
}

fn short(plugin: &Path) -> [MeasuredCommand; 3] {
    let name = plugin.file_name().unwrap_or_default().to_string_lossy();
    [
        MeasuredCommand::new(format!("{name} --version"), plugin, &["--version"]),
        MeasuredCommand::new(format!("{name} --help"), plugin, &["--help"]),
        MeasuredCommand::new(format!("{name} with a usage error"), plugin, &["no-such-verb"]).exits(2),
    ]
}
