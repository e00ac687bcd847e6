//! The expected state after a step.

use engine::run::{Draw, Run};
use supervisor::node::EtcdMember;

use super::ServerToken;
use super::observed::{Configured, Datastore, Files, Login, Needs, Observed, Output, RoundResult};
use super::record::Record;
use super::step::{Change, SnapshotKind, Step};

/// The record that is journaled before a step is sent.
pub(super) fn intend(step: &Step, run: &Run<ServerToken>, draw: &mut dyn Draw) -> Record {
    match step {
        Step::Create { value, .. } => {
            let mut record = run.record.clone();
            let value = value.unwrap_or_else(|| draw.credential());
            record.new.retain(|each| *each != value);
            record.new.push(value);
            record
        }
        Step::BackUp(backup) => backup.record.clone(),
        Step::Forget => Record {
            is_ended: true,
            ..run.record.clone()
        },
        _ => run.record.clone(),
    }
}

/// The state directly after a step.
pub(super) fn predict(seen: &mut Observed, run: &Run<ServerToken>, step: &Step) {
    match step {
        Step::Create { .. } => {
            if let Output::File { holds, .. } = &mut seen.output {
                *holds = run.record.new.last().copied();
            }
        }
        Step::BackUp(backup) => {
            seen.backup = Some(backup.record.clone());
            if let Change::RoundBegins(_) = backup.change {
                seen.round = RoundResult::Recorded;
            }
        }
        Step::Print(value) => {
            seen.output = Output::Print { printed: Some(*value) };
        }
        Step::Snapshot(kind) => snapshot(seen, run, *kind),
        Step::Unpin { server } => {
            if let Some(server) = seen.servers.get_mut(server) {
                server.configured = Configured::Nowhere;
                server.has_configuration_backup = true;
            }
        }
        Step::Round(round) => {
            let is_repeated = round.is_repeated();
            // Without snapshots, the second time is the check of the first one, and changes no file.
            let is_check = !seen.has_snapshots() && seen.round == RoundResult::Complete;
            let is_ordered = !is_repeated || is_check;
            seen.round = if is_ordered {
                RoundResult::Complete
            } else {
                RoundResult::Repeated
            };
            seen.forget_files();
            if is_repeated && !seen.has_snapshots() {
                for server in seen.servers.values_mut() {
                    server.files = Files::Hold(round.value());
                }
            }
        }
        Step::Heal(_) => {
            seen.round = RoundResult::Healed;
            seen.forget_files();
        }
        Step::Restart(restart) => {
            if let Some(server) = seen.servers.get_mut(restart.server()) {
                server.is_restarting = true;
                server.is_ready = false;
                server.accepts = Login::Unknown;
                server.as_node = server.as_node.map(|_| Login::Unknown);
                if restart.unpins() {
                    server.configured = Configured::Nowhere;
                }
            }
        }
        Step::Repin { node, value } => {
            if let Some(server) = seen.servers.get_mut(node) {
                server.configured = Configured::Token(Some(*value));
                // A rollback moves the backup back.
                server.has_configuration_backup &= !run.direction.is_rollback();
            }
            if let Some(agent) = seen.agents.get_mut(node) {
                *agent = Configured::Token(Some(*value));
            }
        }
        Step::DeleteConfigurationBackups => {
            for server in seen.servers.values_mut() {
                server.has_configuration_backup = false;
            }
        }
        Step::DeleteSnapshots => seen.snapshots.has_checking = false,
        Step::Forget => seen.backup = None,
    }
}

fn snapshot(seen: &mut Observed, run: &Run<ServerToken>, kind: SnapshotKind) {
    let expected = expected(seen, run);
    for server in seen
        .servers
        .values_mut()
        .filter(|server| server.files == Files::Unknown)
    {
        server.files = Files::Hold(expected);
    }
    let needs = if seen.all_hold(expected) == Some(true) {
        Needs::Token(expected)
    } else {
        Needs::Unknown
    };
    match kind {
        SnapshotKind::First => seen.snapshots.first = Some(needs),
        SnapshotKind::Checking => seen.snapshots.has_checking = true,
        SnapshotKind::Last => seen.snapshots.last = Some(needs),
    }
}

/// The token that every server is expected to have in its files.
fn expected(seen: &Observed, run: &Run<ServerToken>) -> client::secret::Fingerprint {
    let record = seen.backup.as_ref().unwrap_or(&run.record);
    match &record.round {
        Some(round) if round.is_complete => round.value,
        Some(round) => match seen.round {
            RoundResult::Complete | RoundResult::Repeated => round.value,
            _ => round.before,
        },
        None => record.old,
    }
}

/// The state once the servers that were restarted are up.
pub(super) fn settle(seen: &mut Observed, run: &Run<ServerToken>) {
    let expected = expected(seen, run);
    let has_etcd = seen.cluster.datastore == Datastore::Etcd;
    for server in seen.servers.values_mut().filter(|server| server.is_restarting) {
        let loaded = match server.files {
            Files::Hold(value) => value,
            Files::Unknown | Files::Damaged => expected,
        };
        server.is_restarting = false;
        server.is_ready = true;
        server.accepts = Login::Accepts(loaded);
        server.as_node = server.as_node.map(|_| Login::Accepts(loaded));
        if has_etcd {
            server.member = EtcdMember::Voter;
        }
    }
}
