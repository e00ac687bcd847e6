//! The permissions that a run needs.

use client::access::Right;

use super::Options;
use crate::report::target::CLUSTER;
use crate::rights;
use crate::server_token::node_way::NodeWay;
use crate::server_token::rotation::observed::Observed;

/// By how nodes are reached, and whether there are snapshots.
pub(super) fn rights(options: &Options, seen: Option<&Observed>) -> Vec<Right> {
    let has_pods = matches!(options.nodes, NodeWay::Pod { .. });
    let has_snapshots = seen.is_some_and(Observed::has_snapshots);
    let conditions: Vec<&str> = [(has_pods, rights::VIA_POD), (has_snapshots, rights::WITH_ETCD)]
        .into_iter()
        .filter_map(|(holds, condition)| holds.then_some(condition))
        .collect();
    rights::TABLE.required(rights::SERVER_ROTATE, CLUSTER, &conditions, &[])
}
