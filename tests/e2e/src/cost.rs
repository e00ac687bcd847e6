//! The requests of a command, as the proxy in front of its servers recorded them. `docs/requests.md` documents them, and a
//! test fails where the page is wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use test_cluster::{FaultProxy, Request};

/// The documentation for users.
const DOCUMENT: &str = include_str!("../../../docs/requests.md");

/// The requests of one command, by kind.
pub struct Cost {
    /// Writes of the Lease, which is the lock and the journal.
    pub leases: Vec<Request>,
    /// All other writes.
    pub writes: Vec<Request>,
    /// All other requests.
    pub reads: Vec<Request>,
    transcript: String,
}

impl Cost {
    /// All requests that a proxy has recorded.
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

    /// Checks that the document has the table of the writes under this title. `what` describes a write.
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
            "docs/requests.md does not have:\n{table}\n{}",
            self.transcript
        );
        Ok(())
    }

    /// Checks that the Lease was written at most once for each other write, `besides` more times, and once every ten seconds.
    pub fn leases_follow(&self, besides: usize, took: Duration) -> Result<()> {
        let renewals = usize::try_from(took.as_secs() / 10)?;
        let most = self.writes.len() + besides + renewals;
        self.at_most(most, "writes of the Lease", self.leases.len())
    }

    /// Checks a limit of the document.
    pub fn at_most(&self, most: usize, what: &str, were: usize) -> Result<()> {
        ensure!(were <= most, "{were} {what}, at most {most}\n{}", self.transcript);
        Ok(())
    }
}
