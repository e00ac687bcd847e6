//! What a command costs its servers, as a proxy in front of them saw it. `docs/requests.md` tells it to users, and a story
//! fails where that page is wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use test_cluster::{FaultProxy, Request};

/// What the user is told.
const DOCUMENT: &str = include_str!("../../../docs/requests.md");

/// The requests of one command, by their sort.
pub struct Cost {
    /// Writes of the Lease, which is lock and journal.
    pub leases: Vec<Request>,
    /// All other writes.
    pub writes: Vec<Request>,
    /// All the rest.
    pub reads: Vec<Request>,
    transcript: String,
}

impl Cost {
    /// Of everything that went through a proxy.
    pub fn of(proxy: &FaultProxy) -> Self {
        let (writes, reads): (Vec<_>, Vec<_>) = proxy.requests().into_iter().partition(|it| it.write.is_some());
        let (leases, writes) = writes.into_iter().partition(|write| write.path.contains("/leases"));
        Self {
            leases,
            writes,
            reads,
            transcript: proxy.transcript(),
        }
    }

    /// Whether the document has the table of the writes under this title. `what` words each of them.
    pub fn is_documented(&self, title: &str, what: impl Fn(&Request) -> String) -> Result<()> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for write in &self.writes {
            *counts.entry(what(write)).or_default() += 1;
        }
        let mut table = format!("### {title}\n\n| write | count |\n|---|---:|\n");
        for (what, count) in &counts {
            let _ = writeln!(table, "| {what} | {count} |");
        }
        let _ = writeln!(table, "| **together** | **{}** |", self.writes.len());
        ensure!(
            DOCUMENT.contains(&table),
            "docs/requests.md does not say:\n{table}\n{}",
            self.transcript
        );
        Ok(())
    }

    /// Whether the Lease was written once for each of the other writes, so often besides, and every ten seconds.
    pub fn leases_follow(&self, besides: usize, took: Duration) -> Result<()> {
        let renewals = usize::try_from(took.as_secs() / 10)?;
        let most = self.writes.len() + besides + renewals;
        self.at_most(most, "writes of the Lease", self.leases.len())
    }

    /// Whether there were no more of these than the document allows.
    pub fn at_most(&self, most: usize, what: &str, were: usize) -> Result<()> {
        ensure!(were <= most, "{were} {what}, at most {most}\n{}", self.transcript);
        Ok(())
    }
}
