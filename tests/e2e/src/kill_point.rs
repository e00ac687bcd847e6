//! The points at which a kill matrix kills a run.

use std::fmt;

use test_cluster::{Fault, FaultProxy, Moment, On, Planned};

/// A write at which a run is killed, and the moment of the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillPoint {
    /// The number of the write, counted from 1.
    pub write: usize,
    /// Before or after the server has processed the write.
    pub moment: Moment,
}

impl KillPoint {
    /// One point for each state of the servers between the writes of a run: before its first write, and after each write.
    ///
    /// A kill before a write leaves the same state as a kill after the write before it.
    pub fn all(writes: usize) -> impl Iterator<Item = Self> {
        let after = (1..=writes).map(|write| Self {
            write,
            moment: Moment::After,
        });
        [Self::before(1)].into_iter().chain(after)
    }

    /// Before a write, for a run that changes something else than the servers between two writes.
    pub fn before(write: usize) -> Self {
        Self {
            write,
            moment: Moment::Before,
        }
    }

    /// Kills the victim of the proxy at this point.
    pub fn plan(self, proxy: &FaultProxy) -> Planned {
        proxy.plan(On::write().nth(self.write), Fault::Kill(self.moment))
    }
}

impl fmt::Display for KillPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        write!(f, "killed {moment} write {}", self.write)
    }
}
