//! What a run says at its end, or where it stops.

use std::collections::BTreeSet;

use client::error::{Error, Kind};
use engine::controller::Summary;

use super::AgentTokenController;
use crate::agent_token::rotation::observed::{Agent, Configured, Observed};
use crate::server_token::rotation::observed::{Login, Server};
use crate::server_token::session::explain::{accepted_by_all, leaves_a_run, logins, problems, until_the_end};
use crate::server_token::session::{OutputTarget, output};

fn as_node(server: &Server) -> Login {
    server.as_node.unwrap_or(Login::Unknown)
}

impl AgentTokenController<'_> {
    /// Adds why servers are not ready, and what to mind until the end.
    pub(super) fn explained(&self, mut error: Error) -> Error {
        // The stages know the verbs alone.
        let commands = &self.options.commands;
        for (verb, command) in [
            ("`recover`", self.asked.of_server.recover()),
            ("`rotate`", commands.on("rotate", "")),
            ("`set`", commands.on("set", "")),
            ("`remove`", commands.on("remove", "")),
        ] {
            for hint in &mut error.hints {
                *hint = hint.replace(verb, &format!("`{command}`"));
            }
        }
        if error.kind == Kind::Usage {
            return error;
        }
        let record = self.own().backup.as_ref().map(|backup| backup.content.record.clone());
        let state = self.state();
        let Some(latest) = &state.latest else { return error };
        // Another process has ended it since it was observed.
        if record.is_some() && !leaves_a_run(error.kind) {
            return error;
        }
        let error = problems(latest).into_iter().fold(error, Error::hint);
        match record {
            Some(record) => {
                let new: Vec<_> = record.new.into_iter().collect();
                let logins = logins(&latest.seen, latest.at.elapsed(), as_node);
                let hints = until_the_end(record.old, &new, &logins);
                hints.into_iter().fold(error, Error::hint)
            }
            None => error,
        }
    }

    pub(super) fn summarized(&self) -> Summary {
        let seen = self.state().latest.as_ref().map(|latest| latest.seen.clone());
        let in_use = seen.as_ref().and_then(|seen| accepted_by_all(seen, as_node));
        let name = in_use.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        let mut sentences = vec![match &self.options.output {
            _ if in_use == Some(self.given()) => "Agents join with the server token.".to_owned(),
            OutputTarget::File(path) if output::holds(path) == in_use => {
                format!("The new agent token is {name}, in {}.", path.display())
            }
            _ => format!("The new agent token is {name}."),
        }];
        let own = self.own();
        if own.is_old_unknown {
            let sentence = "Not proven: that the old agent token is rejected. It is not known: pass it with --agent-token-file, or add --node-exec.";
            sentences.push(sentence.to_owned());
        }
        let skipped = self.state().skipped_agents.clone();
        let another = own.seen.iter().flat_map(|seen| with_another(seen, in_use));
        let agents: BTreeSet<&str> = another.chain(skipped.iter().map(String::as_str)).collect();
        let agents: Vec<&str> = agents.into_iter().collect();
        if !agents.is_empty() {
            sentences.push(format!(
                "These agents have another token in their configuration, or it is not known which: {}. They need the new one before they join again.",
                agents.join(", ")
            ));
        }
        Summary {
            in_use,
            message: sentences.join(" "),
        }
    }
}

/// The agents that have another token in their configuration, as far as is known.
fn with_another(seen: &Observed, in_use: Option<client::secret::Fingerprint>) -> impl Iterator<Item = &str> {
    let agents = seen.agents.iter();
    let has_another = move |agent: &Agent| match &agent.configured {
        Configured::Token(value) => value.is_none() || *value != in_use,
        Configured::Nowhere | Configured::Unknown => false,
    };
    agents
        .filter(move |(_, agent)| has_another(agent))
        .map(|(name, _)| name.as_str())
}
