//! What it costs to start: every call of a plugin pays it, and kubectl's own start comes before it.

use std::path::Path;

use anyhow::Result;

use crate::cost::{Subject, pairs};
use crate::figures::{COMPARISON, comparison, table};

/// Each of our three short commands, by turns with `kubectl version --client` of each kubectl.
pub(crate) fn start(plugin: &Path, kubectls: &[(String, std::path::PathBuf)], count: u32) -> Result<()> {
    let ours = [
        Subject::new("kubectl-crt --version", plugin, &["--version"]),
        Subject::new("kubectl-crt --help", plugin, &["--help"]),
        Subject::new("kubectl-crt with a usage error", plugin, &["no-such-verb"]).exits(2),
    ];
    for (name, kubectl) in kubectls {
        let theirs = Subject::new(format!("{name} version --client"), kubectl, &["version", "--client"]);
        let mut rows = table(&COMPARISON);
        for ours in &ours {
            let (a, b) = pairs(ours, &theirs, count)?;
            comparison(&mut rows, (&theirs.name, b), (&ours.name, a));
        }
        anstream::println!("\n{rows}");
    }
    Ok(())
}
