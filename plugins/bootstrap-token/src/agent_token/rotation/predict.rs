//! The expected state after a step.

use engine::run::{Draw, Run};
use supervisor::node::EtcdMember;

use super::AgentToken;
use super::observed::{Configured, Datastore, Login, Observed, Output, PutResult, as_node};
use super::record::Record;
use super::step::{Change, Step};

/// The record that is journaled before a step is sent.
pub(super) fn intend(step: &Step, run: &Run<AgentToken>, draw: &mut dyn Draw) -> Record {
    match step {
        Step::Create { value, .. } => Record {
            new: Some(value.unwrap_or_else(|| draw.credential())),
            ..run.record.clone()
        },
        Step::BackUp(backup) => backup.record.clone(),
        Step::Forget => Record {
            is_ended: true,
            ..run.record.clone()
        },
        _ => run.record.clone(),
    }
}

/// The state directly after a step.
pub(super) fn predict(seen: &mut Observed, run: &Run<AgentToken>, step: &Step) {
    match step {
        Step::Create { .. } => {
            if let Output::File { holds, .. } = &mut seen.output {
                *holds = run.record.new;
            }
        }
        Step::BackUp(backup) => {
            seen.backup = Some(backup.record.clone());
            match (&backup.change, &mut seen.started) {
                (Change::Saves(_), _) => seen.put = PutResult::Recorded,
                (Change::Saved(_), Some(started)) => started.clear(),
                _ => {}
            }
        }
        Step::Print(value) => seen.output = Output::Print { printed: Some(*value) },
        Step::Configure { server, value } => {
            if let Some(server) = seen.servers.get_mut(server) {
                server.configured = value.map_or(Configured::Nowhere, |value| Configured::Token(Some(value)));
                // A rollback moves the backup back.
                server.has_configuration_backup = !run.direction.is_rollback();
            }
        }
        Step::ConfigureAgent { agent, value } => {
            if let Some(agent) = seen.agents.get_mut(agent) {
                agent.configured = Configured::Token(Some(*value));
                agent.has_configuration_backup = true;
            }
        }
        Step::Restart(restart) => {
            if let Some(server) = seen.servers.get_mut(restart.server()) {
                server.is_restarting = true;
                server.is_ready = false;
                server.accepts = Login::Unknown;
                server.as_node = Some(Login::Unknown);
            }
        }
        Step::Save(save) => seen.put = PutResult::Done(save.saved().clone()),
        Step::DeleteConfigurationBackups => {
            for server in seen.servers.values_mut() {
                server.has_configuration_backup = false;
            }
            for agent in seen.agents.values_mut() {
                agent.has_configuration_backup = false;
            }
        }
        Step::Forget => seen.backup = None,
    }
}

/// The state once the servers that were restarted are up.
pub(super) fn settle(seen: &mut Observed, run: &Run<AgentToken>) {
    let target = run.record.target(run.direction.is_rollback());
    let saved = seen.backup.as_ref().map_or(run.record.old, |backup| backup.saved.token);
    let has_etcd = seen.cluster.datastore == Datastore::Etcd;
    let given = seen.given;
    for (name, server) in seen.servers.iter_mut().filter(|(_, server)| server.is_restarting) {
        let configured = match server.configured {
            _ if !seen.options.has_node_access => target,
            Configured::Nowhere => Some(given),
            Configured::Token(value) => value,
            Configured::Unknown => None,
        };
        server.is_restarting = false;
        server.is_ready = true;
        server.accepts = Login::Accepts(given);
        server.as_node = Some(configured.map_or(Login::Another, Login::Accepts));
        if has_etcd {
            server.member = EtcdMember::Voter;
        }
        // A file that is rewritten is the newest. Otherwise it is the datastore's.
        let is_rewritten = as_node(server) != Some(saved);
        if let Some(newest) = &mut seen.newest {
            newest.retain(|_| !is_rewritten);
            newest.insert(name.clone());
        }
        if let Some(started) = &mut seen.started {
            started.insert(name.clone());
        }
    }
}
