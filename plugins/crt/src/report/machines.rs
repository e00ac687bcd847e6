//! The machines of a cluster that Rancher provisioned. One that has joined with a leaked registration token keeps its plan, which holds
//! the cluster's join token.

use cli::age;
use cli::rotation::Commands;
use client::sanitize;
use k8s_openapi::jiff::Timestamp;
use rancher::provisioned::{Machine, ProvisioningCluster};
use serde::Serialize;

/// How many are named in a sentence, beside those without a Node.
const NAMED: usize = 8;

/// One machine, as `status -o json` shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MachineRow {
    name: String,
    address: Option<String>,
    /// When it has joined.
    created: Option<Timestamp>,
    /// The Node that belongs to it.
    node: Option<String>,
}

/// Those without a Node first, then the youngest.
pub(crate) fn rows(machines: &[Machine]) -> Vec<MachineRow> {
    let mut rows: Vec<MachineRow> = machines
        .iter()
        .map(|machine| MachineRow {
            name: machine.name.clone(),
            address: machine.address.clone(),
            created: machine.created,
            node: machine.node.clone(),
        })
        .collect();
    rows.sort_by(|a, b| {
        let key = |row: &MachineRow| (row.node.is_some(), std::cmp::Reverse(row.created));
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    rows
}

impl MachineRow {
    fn text(&self, now: Timestamp) -> String {
        let address = self.address.as_deref().map(sanitize::cell);
        let joined = self.created.map(|at| age::human(now.duration_since(at).as_secs()));
        let node = self.node.is_none().then(|| "no Node".to_owned());
        let facts: Vec<_> = [address, joined, node].into_iter().flatten().collect();
        format!("{} ({})", sanitize::cell(&self.name), facts.join(", "))
    }
}

/// What a leak means beyond the rotation.
pub(crate) fn after_a_leak(
    cluster: &ProvisioningCluster,
    rows: &[MachineRow],
    commands: &Commands,
    now: Timestamp,
) -> Option<String> {
    let without_node = rows.iter().filter(|row| row.node.is_none()).count();
    let shown = rows.len().min(without_node + NAMED);
    let mut named: Vec<String> = rows.iter().take(shown).map(|row| row.text(now)).collect();
    if shown < rows.len() {
        named.push(format!("{} more", rows.len() - shown));
    }
    let delete = commands.kubectl(&format!(
        "-n {} delete machines.cluster.x-k8s.io NAME",
        cluster.namespace
    ));
    (!rows.is_empty()).then(|| {
        format!(
            "If a registration token has leaked, check who has joined with it: {}. A machine keeps the cluster's join token, which is a \
             secret of its own; `{delete}`, on the management cluster, removes a machine.",
            named.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use cli::app::GlobalFlags;

    use super::*;

    fn machine(name: &str, created: &str, node: Option<&str>) -> Machine {
        Machine {
            name: name.to_owned(),
            address: Some("10.98.0.2".to_owned()),
            created: created.parse().ok(),
            node: node.map(str::to_owned),
            healthy: None,
        }
    }

    #[test]
    fn machines_without_a_node_come_first_and_no_list_is_endless() {
        let cluster = ProvisioningCluster {
            namespace: "fleet-default".to_owned(),
            name: "eu".to_owned(),
            cluster: "c-m-abcdefgh".parse().unwrap(),
            has_machines: true,
            ready: rancher::cluster::ConditionStatus::True,
            ready_since: None,
        };
        let commands = Commands::new::<crate::cli::Crt>("c-m-abcdefgh", &GlobalFlags::default());
        let now = "2026-11-30T00:00:00Z".parse().unwrap();
        let mut all: Vec<Machine> = (0..10)
            .map(|number| machine(&format!("custom-{number}"), "2026-11-28T00:00:00Z", Some("node")))
            .collect();
        all.push(machine("custom-x", "2026-11-29T23:00:00Z", None));
        let text = after_a_leak(&cluster, &rows(&all), &commands, now).unwrap();
        assert!(
            text.contains("it: custom-x (10.98.0.2, 60m, no Node), custom-0 (10.98.0.2, 2d), "),
            "{text}"
        );
        assert!(text.contains(", 2 more. "), "{text}");
        assert!(
            text.contains("`kubectl -n fleet-default delete machines.cluster.x-k8s.io NAME`"),
            "{text}"
        );
        assert_eq!(after_a_leak(&cluster, &[], &commands, now), None);
    }
}
