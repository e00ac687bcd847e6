//! How a snapshot is restored: the commands for each server, in their order. No token is in them.
//!
//! The restored server becomes the only member of etcd. The others lose their databases, and join it again with the token of the
//! snapshot, which each server has to start with from then on. What a server has saved of its logins is newer than the snapshot, which
//! K3s takes for a sign of damage, so `cred/passwd` is removed where it is not restored.

use std::fmt::Write as _;

use supervisor::SupervisorKind;
use supervisor::node::{ClusterNode, StartConfiguration};
use supervisor::snapshot::SnapshotFile;

const SNAPSHOTS: &str = "/server/db/snapshots/";
const TOKEN: &str = "/root/snapshot-token";

/// The plan. `token`: which one the snapshot needs, in words. `status`: the command that shows where a token is configured.
pub(super) fn plan(file: &SnapshotFile, token: &str, nodes: &[ClusterNode], status: &str) -> String {
    let servers: Vec<&ClusterNode> = nodes.iter().filter(|node| node.supervisor().is_some()).collect();
    let agents = nodes
        .iter()
        .any(|node| node.distribution.supervisor().is_some() && node.supervisor().is_none());
    let kind = servers
        .iter()
        .find_map(|node| node.supervisor())
        .unwrap_or(SupervisorKind::K3s);
    // A snapshot in a bucket can be restored anywhere: the first server needs no other one.
    let first = servers
        .iter()
        .find(|node| node.name == file.node)
        .or_else(|| servers.iter().find(|node| !joins(node)))
        .or(servers.first());
    let first = first.map_or("a server", |node| node.name.as_str());
    let others: Vec<&ClusterNode> = servers.iter().filter(|node| node.name != first).copied().collect();
    let all: Vec<&str> = servers.iter().map(|node| node.name.as_str()).collect();
    let names = |nodes: &[&ClusterNode]| {
        nodes
            .iter()
            .map(|node| node.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };

    let program = kind.program();
    let unit = kind.server_unit();
    let is_local = file.location.starts_with("file://");
    let path = file.location.strip_prefix("file://").unwrap_or(&file.name);
    let data = path
        .split_once(SNAPSHOTS)
        .filter(|_| is_local)
        .map_or_else(|| format!("/var/lib/rancher/{program}"), |(data, _)| data.to_owned());
    let mut plan = Steps::default();
    let _ = writeln!(plan.text, "Restore {} on {first}. It needs {token}.", file.name);
    let _ = writeln!(plan.text, "What was written after the snapshot is lost.");

    plan.step("Put the token into a file", &all.join(", "));
    plan.command(&format!(
        "install -m 600 /dev/stdin {TOKEN}   # paste the token, Enter, Ctrl-D"
    ));
    plan.step("Stop every server, and keep its files", &all.join(", "));
    plan.command(&format!("systemctl stop {unit}"));
    if kind == SupervisorKind::Rke2 {
        plan.command("rke2-killall.sh");
    }
    plan.command(&format!("cp -a {data}/server {data}/server.before-restore"));
    plan.step("Restore", first);
    let s3 = if is_local { "" } else { "--etcd-s3 " };
    plan.command(&format!(
        "{program} server --cluster-reset {s3}--cluster-reset-restore-path={} --token-file={TOKEN}",
        quoted(path)
    ));
    plan.note(
        "It ends with \"Managed etcd cluster membership has been reset, restart without --cluster-reset flag now\".",
    );
    if !is_local {
        plan.note("The bucket and its credentials are taken from the configuration, or from more --etcd-s3-… flags.");
    }
    let pinned: Vec<&ClusterNode> = servers.iter().copied().filter(|node| has_token(node)).collect();
    if !pinned.is_empty() {
        plan.step(
            "Configure the token of the snapshot instead of the one that is configured",
            &names(&pinned),
        );
        plan.note(&format!(
            "`{status}` shows where it is configured. A server does not start with another one."
        ));
    }
    plan.step("Start it", first);
    plan.command(&format!("systemctl start {unit}"));
    plan.note("Wait until `kubectl get --raw /readyz` prints ok.");
    if !others.is_empty() {
        plan.step("Remove the database that is not restored", &names(&others));
        plan.command(&format!("rm -rf {data}/server/db {data}/server/cred/passwd"));
        let unpinned: Vec<&ClusterNode> = others.iter().copied().filter(|node| !has_token(node)).collect();
        if !unpinned.is_empty() {
            plan.step("Let the others use the token of the snapshot", &names(&unpinned));
            plan.command(&format!("install -m 600 {TOKEN} {data}/server/token"));
        }
        let alone: Vec<&ClusterNode> = others.iter().copied().filter(|node| !joins(node)).collect();
        if !alone.is_empty() {
            plan.step(
                "Add a server to join, or it would begin a cluster of its own",
                &names(&alone),
            );
            let address = servers
                .iter()
                .find(|node| node.name == first)
                .and_then(|node| node.internal_ips.first());
            let address = address.map_or(first, String::as_str);
            plan.command(&format!(
                "echo 'server: https://{address}:{}' >> /etc/rancher/{program}/config.yaml",
                kind.port()
            ));
        }
        for other in &others {
            plan.step("Start it, and wait until it has joined", &other.name);
            plan.command(&format!("systemctl start {unit}"));
            plan.note(&format!(
                "Wait: `kubectl wait --for=condition=EtcdIsVoter node/{} --timeout=10m`",
                other.name
            ));
        }
    }
    if agents {
        plan.step("Restart the agents", "every agent");
        plan.command(&format!("systemctl restart {}", kind.agent_unit()));
        plan.note("A node that joined after the snapshot has no Node in it: it joins again with the token in its configuration.");
    }
    if !others.is_empty() {
        plan.step("Keep their own snapshots", &names(&others));
        plan.command(&format!(
            "mv {data}/server.before-restore/db/snapshots {data}/server/db/"
        ));
    }
    plan.step(
        "Remove what is no longer needed, once the cluster works",
        &all.join(", "),
    );
    plan.command(&format!("rm -rf {TOKEN} {data}/server.before-restore"));
    plan.text
}

fn has_token(node: &ClusterNode) -> bool {
    match &node.start {
        StartConfiguration::Read { token, .. } => !token.is_empty(),
        // It has to be looked at.
        StartConfiguration::Unknown(_) => true,
    }
}

fn joins(node: &ClusterNode) -> bool {
    matches!(node.start, StartConfiguration::Read { has_server: true, .. })
}

fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| format!("{text:?}"), Into::into)
}

#[derive(Default)]
struct Steps {
    text: String,
    count: usize,
}

impl Steps {
    fn step(&mut self, what: &str, on: &str) {
        self.count += 1;
        let _ = writeln!(self.text, "\n{}. {what} (on {on})", self.count);
    }

    fn command(&mut self, command: &str) {
        let _ = writeln!(self.text, "     {command}");
    }

    fn note(&mut self, note: &str) {
        let _ = writeln!(self.text, "   {note}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_token::report::server::tests::server;
    use crate::snapshots::needs::tests::taken_with;

    fn cluster(version: &str) -> Vec<ClusterNode> {
        let mut nodes = vec![
            server("s1", &["--token"]),
            server("s2", &["--server"]),
            server("s3", &["--server"]),
        ];
        for node in &mut nodes {
            node.distribution = supervisor::Distribution::of_version(version);
        }
        nodes
    }

    #[test]
    fn the_plan_names_every_command_on_every_server() {
        let file = &taken_with(&[Some("token")])[0];
        insta::assert_snapshot!(plan(file, "the token in token.txt", &cluster("v1.36.3+k3s1"), "STATUS"), @r#"
        Restore daily-0 on s1. It needs the token in token.txt.
        What was written after the snapshot is lost.

        1. Put the token into a file (on s1, s2, s3)
             install -m 600 /dev/stdin /root/snapshot-token   # paste the token, Enter, Ctrl-D

        2. Stop every server, and keep its files (on s1, s2, s3)
             systemctl stop k3s
             cp -a /var/lib/rancher/k3s/server /var/lib/rancher/k3s/server.before-restore

        3. Restore (on s1)
             k3s server --cluster-reset --cluster-reset-restore-path=/var/lib/rancher/k3s/server/db/snapshots/daily-0 --token-file=/root/snapshot-token
           It ends with "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now".

        4. Configure the token of the snapshot instead of the one that is configured (on s1)
           `STATUS` shows where it is configured. A server does not start with another one.

        5. Start it (on s1)
             systemctl start k3s
           Wait until `kubectl get --raw /readyz` prints ok.

        6. Remove the database that is not restored (on s2, s3)
             rm -rf /var/lib/rancher/k3s/server/db /var/lib/rancher/k3s/server/cred/passwd

        7. Let the others use the token of the snapshot (on s2, s3)
             install -m 600 /root/snapshot-token /var/lib/rancher/k3s/server/token

        8. Start it, and wait until it has joined (on s2)
             systemctl start k3s
           Wait: `kubectl wait --for=condition=EtcdIsVoter node/s2 --timeout=10m`

        9. Start it, and wait until it has joined (on s3)
             systemctl start k3s
           Wait: `kubectl wait --for=condition=EtcdIsVoter node/s3 --timeout=10m`

        10. Keep their own snapshots (on s2, s3)
             mv /var/lib/rancher/k3s/server.before-restore/db/snapshots /var/lib/rancher/k3s/server/db/

        11. Remove what is no longer needed, once the cluster works (on s1, s2, s3)
             rm -rf /root/snapshot-token /var/lib/rancher/k3s/server.before-restore
        "#);
    }

    #[test]
    fn a_server_that_joins_no_other_gets_one_to_join() {
        let mut file = taken_with(&[Some("token")]).remove(0);
        "s2".clone_into(&mut file.node);
        file.location = file.location.replace("k3s", "rke2");
        let plan = plan(&file, "the token in token.txt", &cluster("v1.36.3+rke2r1"), "STATUS");
        assert!(plan.contains("Restore daily-0 on s2."), "{plan}");
        assert!(
            plan.contains("(on s1)\n     echo 'server: https://10.0.0.1:9345' >>"),
            "{plan}"
        );
        assert!(
            plan.contains("rke2-killall.sh") && plan.contains("systemctl start rke2-server"),
            "{plan}"
        );
    }

    #[test]
    fn a_snapshot_in_a_bucket_is_restored_on_the_first_server() {
        let mut file = taken_with(&[Some("token")]).remove(0);
        "s3".clone_into(&mut file.node);
        "s3://bucket/daily-0".clone_into(&mut file.location);
        let plan = plan(&file, "the token in token.txt", &cluster("v1.36.3+k3s1")[..1], "STATUS");
        assert!(plan.contains("Restore daily-0 on s1."), "{plan}");
        assert!(
            plan.contains("--etcd-s3 --cluster-reset-restore-path=daily-0 "),
            "{plan}"
        );
    }
}
