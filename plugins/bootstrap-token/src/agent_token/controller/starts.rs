//! When the process of each server has started, where an operator restarts the servers. The metrics of a server are large, so they are read
//! where it can have started since: when it was away, accepts another token, or a step depends on it.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::controller::Failure;
use futures::future::join_all;
use supervisor::{SupervisorKind, ready};
use tokio::time::Instant;

use super::AgentTokenController;
use crate::server_token::rotation::observed::{Login, Observed};

/// How long a start counts that was read.
const FRESH: Duration = Duration::from_mins(1);

/// By the names of servers.
#[derive(Default)]
pub(super) struct Starts(BTreeMap<String, Start>);

#[derive(Clone, Copy)]
struct Start {
    read: Instant,
    /// `None`: the server does not show it.
    at: Option<i64>,
    as_node: Option<Login>,
    /// It has been away since it was read.
    was_away: bool,
}

impl Starts {
    /// Those that are known.
    pub(super) fn known(&self) -> BTreeMap<String, i64> {
        let known = self
            .0
            .iter()
            .filter_map(|(name, start)| Some((name.clone(), start.at?)));
        known.collect()
    }
}

impl AgentTokenController<'_> {
    /// Reads them. A server that is not ready has not started, as far as it matters: nothing is restarted before it is.
    ///
    /// `recorded`: for servers that are not ready when this process begins.
    pub(super) async fn read_starts(
        &self,
        seen: &Observed,
        recorded: Option<&BTreeMap<String, i64>>,
        is_checked: bool,
    ) -> Result<(), Failure> {
        // The API server of RKE2 is a process of its own, which does not restart with the server.
        if self.options.has_node_access() || self.options.kind == SupervisorKind::Rke2 {
            return Ok(());
        }
        let mut due = Vec::new();
        {
            let (mut own, state) = (self.own(), self.state());
            let targets = state.latest.iter().flat_map(|latest| &latest.targets);
            for target in targets {
                let Some(server) = seen.servers.get(&target.name) else {
                    continue;
                };
                let start = own.starts.0.get_mut(&target.name);
                match start {
                    Some(start) if !server.is_ready => start.was_away = true,
                    Some(start)
                        if !is_checked
                            && !start.was_away
                            && start.as_node == server.as_node
                            && start.read.elapsed() < FRESH => {}
                    None if !server.is_ready => {
                        let at = recorded.and_then(|recorded| recorded.get(&target.name)).copied();
                        let start = Start {
                            read: Instant::now(),
                            at,
                            as_node: None,
                            was_away: true,
                        };
                        own.starts.0.insert(target.name.clone(), start);
                    }
                    _ => due.extend(
                        target
                            .address()
                            .map(|address| (target.name.clone(), address.clone(), server.as_node)),
                    ),
                }
            }
        }
        let read = join_all(
            due.iter()
                .map(|(_, address, _)| ready::process_start(&self.cluster.connection, address)),
        );
        for ((name, _, as_node), at) in due.iter().zip(read.await) {
            let start = Start {
                read: Instant::now(),
                at: at.map_err(Failure::from)?,
                as_node: *as_node,
                was_away: false,
            };
            self.own().starts.0.insert(name.clone(), start);
        }
        Ok(())
    }
}
