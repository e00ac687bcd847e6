//! What only an operator can do: as instructions that are waited for, or as the hint of a refusal.

use node_access::Instruction;
use supervisor::TokenHash;

use super::facts::{Presence, RecoveryFacts};
use super::plan::{Recovery, refuse};

/// Measured: it accepts the token that it was started with as long as its join server does, and ends in the trap after that.
pub(super) fn not_full(facts: &RecoveryFacts) -> Option<Recovery> {
    let (name, _) = facts.servers.iter().find(|(_, server)| !server.is_full)?;
    let (program, data) = (facts.supervisor.program(), data_dir(facts, name));
    Some(refuse(
        format!("server {name} runs only a control plane or only etcd, for which the recovery has no rules"),
        format!(
            "mend the other servers by hand, then configure their token as `token:` in /etc/rancher/{program}/config.yaml of {name}, delete \
             {data}/server/cred/passwd if its log names that file and no other, and restart it"
        ),
    ))
}

/// Measured: without a PUT of the server token after the first restart, the second one is the trap.
pub(super) fn agent_token(facts: &RecoveryFacts) -> Option<Recovery> {
    let name = facts.with_other_agent_token()?;
    let program = facts.supervisor.program();
    Some(refuse(
        format!(
            "the agent token of server {name} is not the same in its configuration, in its cred/passwd and on the other servers"
        ),
        format!(
            "write one agent token into the configuration of every server. On a server that has started with it (restart one, if none has), run \
             `{program} token rotate` with the server token as the old and as the new one: that saves its cred/passwd. Then restart the others \
             one by one, and run this command again"
        ),
    ))
}

/// A server that does not answer, without node access: what an operator does there.
pub(super) fn no_response(facts: &RecoveryFacts) -> Option<Recovery> {
    let (name, _) = facts.with(Presence::NoResponse).next()?;
    let kind = facts.supervisor;
    let others: Vec<String> = facts.file_tokens().iter().map(ToString::to_string).collect();
    Some(Recovery::ByHand {
        reason: format!(
            "server {name} does not answer, and without node access it is not known why; the files of the other servers have {}",
            if others.is_empty() {
                "no known token".to_owned()
            } else {
                format!("token {}", others.join(" and "))
            }
        ),
        instructions: vec![
            Instruction::remove_token(name, kind),
            Instruction::write_server_token(name, kind, &data_dir(facts, name)),
        ],
    })
}

pub(super) fn configure_once(facts: &RecoveryFacts, name: &str, value: TokenHash) -> Instruction {
    let program = facts.supervisor.program();
    let restart = Instruction::restart(name, facts.supervisor);
    let drop_in = format!("/etc/rancher/{program}/config.yaml.d/recover.yaml");
    Instruction {
        steps: vec![
            format!("write the token with the fingerprint {value} as `token: TOKEN` into {drop_in}, with mode 0600"),
            format!(
                "delete {}/server/cred/passwd if the log names it and no other file",
                data_dir(facts, name)
            ),
            "restart the service".to_owned(),
            format!("when the server is ready, delete {drop_in}"),
        ],
        ..restart
    }
}

fn data_dir(facts: &RecoveryFacts, name: &str) -> String {
    let node = facts.servers.get(name).and_then(|server| server.node.as_ref());
    let known = node
        .map(|node| node.configuration.data_dir.clone())
        .filter(|dir| !dir.is_empty());
    known.unwrap_or_else(|| format!("/var/lib/rancher/{}", facts.supervisor.program()))
}

/// Measured: the rows of `cred/passwd` on one live server, then a PUT there, with its live login. No restart is needed.
pub(super) fn stuck(facts: &RecoveryFacts) -> Recovery {
    let Some(name) = facts.servers.keys().next() else {
        return Recovery::Done;
    };
    let passwd = format!("{}/server/cred/passwd", data_dir(facts, name));
    Recovery::ByHand {
        reason: "every change of the token is rejected: the datastore has a token that no server has in its cred/passwd. After a change to a token \
                 with white space at its end, that is the token without it"
            .to_owned(),
        instructions: vec![Instruction {
            steps: vec![
                "do not restart any server".to_owned(),
                format!("write the token of the datastore as the password of `node` and of `server` into {passwd}"),
                "a token in the form of a bootstrap token is written there as K10<hash>::server:<token>".to_owned(),
                "run this command again".to_owned(),
            ],
            commands: Vec::new(),
            ..Instruction::restart(name, facts.supervisor)
        }],
    }
}
