//! What `agent-token set`, `rotate`, `remove` and `rollback` share: their flags, and the run.

use cli::app::{Context, GlobalFlags};
use cli::rotation::outcome::Verb;
use cli::rotation::results::Results;
use cli::rotation::{Commands, Job, Target};
use client::error::Error;
use engine::rotation::Check;
use node_access::NodeAccess;
use serde_json::Map;
use supervisor::{ServerToken, TokenValue};

use super::flags::{AgentTokenFlag, NewAgentTokenFlags, value};
use crate::agent_token::controller::{AgentOptions, AgentTokenController};
use crate::agent_token::rotation::observed::Purpose;
use crate::server_token;
use crate::server_token::commands::rotation_command::{RotationFlags, Servers, forced, target_of};
use crate::server_token::lease;
use crate::server_token::node_way::{NO_RUN, NodeWay};
use crate::server_token::rotation::observed::Repin;
use crate::server_token::session::{Options, RotatedToken, Session};

/// The flags that all of them share.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct AgentRotationFlags {
    #[command(flatten)]
    pub servers: RotationFlags,

    /// Also write the agent token into the configuration of agents that have another. Needs access to nodes
    #[arg(long)]
    pub agents: bool,
}

/// One command.
pub(super) struct AgentRotationCommand<'a> {
    /// Its name. `None`: it is a rollback.
    pub(super) purpose: Option<Purpose>,
    pub(super) flags: &'a AgentRotationFlags,
    pub(super) old: &'a AgentTokenFlag,
    pub(super) new: &'a NewAgentTokenFlags,
    pub(super) forced: Vec<Check>,
    pub(super) global: &'a GlobalFlags,
    pub(super) context: &'a Context,
}

impl AgentRotationCommand<'_> {
    /// Runs the command and prints the result. Also returns the name of the outcome.
    pub(super) async fn run(self) -> Result<(&'static str, Result<(), Error>), Error> {
        let (ui, flags) = (&self.context.ui, &self.flags.servers);
        let results = Results::new(ui, &flags.run, true)?;
        if self.flags.agents && matches!(flags.nodes.way()?, NodeWay::ByHand) {
            return Err(Error::usage("--agents needs --node-exec or --via pod"));
        }
        let (given_old, given_new) = (self.old.value()?, self.new.given()?);
        let servers = flags.open(self.global, self.context).await?;
        let known = match &given_old {
            Some(old) => vec![old.clone()],
            // Also for `set`: a run whose backup Secret is deleted is known by what servers accept.
            None => read_from_nodes(&servers).await,
        };
        let Servers {
            cluster,
            kind,
            service,
            nodes,
            access,
            given,
            ..
        } = servers;
        let [force_lock, force_journal] = [Check::LOCK, Check::JOURNAL].map(|check| self.forced.contains(&check));
        let (target, of_server) = self.target();
        let options = Options {
            rotates: RotatedToken::Agent,
            kind,
            given,
            given_new,
            output: self.new.target(),
            nodes,
            service,
            restart_timeout: flags.timeout(kind),
            pause_between: flags.pause_between,
            only: flags.only.clone(),
            repin: if self.flags.agents {
                Repin::ServersAndAgents
            } else {
                Repin::Nowhere
            },
            forced: self.forced.clone(),
            commands: target.commands.clone(),
        };
        let asked = AgentOptions {
            purpose: self.purpose.unwrap_or_default(),
            known,
            of_server,
        };
        let session = Session::new(ui, &cluster, &flags.supervisors, access, options)?;
        let job = Job {
            ui,
            controller: &AgentTokenController::new(session, asked),
            target: &target,
            verb: self.purpose.map_or(Verb::Rollback, |_| Verb::Rotate),
            yes: flags.run.yes,
            dry_run: flags.run.dry_run,
            plan_is_data: results.plan_is_data(),
            among: None,
            force_lock,
            force_journal,
        };
        let (result, ended) = results.run_one(&job).await;
        let outcome = result.outcome;
        results.print(&[result]);
        Ok((outcome, ended))
    }

    /// Also the commands of the server token.
    fn target(&self) -> (Target, Commands) {
        let of_server = self.flags.servers.commands("server-token", self.global);
        let target = Target {
            object: "agent-token".to_owned(),
            name: "agent-token".to_owned(),
            display: "the agent token".to_owned(),
            details: Map::new(),
            action: self.purpose.unwrap_or_default().action(),
            restored: "every server accepts the old agent token as before",
            commands: self.commands(of_server.clone()),
            lease: lease::name(),
        };
        (target, of_server)
    }

    /// The commands that resume a rotation or roll it back, with these options. They are not in the Lease. `rotate` resumes each kind.
    fn commands(&self, of_server: Commands) -> Commands {
        let commands = self.flags.servers.commands("agent-token", self.global);
        let commands = commands.or_of(server_token::commands::other_kind(of_server));
        let verb = match self.purpose {
            Some(Purpose::Set) => "set",
            Some(Purpose::Remove) => "remove",
            Some(Purpose::Rotate) | None => "rotate",
        };
        let path = self.old.path();
        let commands = commands.with_to_run("--agent-token-file", path.as_deref());
        let commands = if self.flags.agents {
            commands.switched_on_to_run("--agents")
        } else {
            commands
        };
        self.new.typed(forced(commands, &self.forced)).resumed_with(verb)
    }
}

/// What servers have accepted from agents since their last start, as far as it can be read, without the server token. Where an operator has
/// begun the change, there are two.
async fn read_from_nodes(servers: &Servers) -> Vec<TokenValue> {
    let NodeWay::Exec(exec) = &servers.nodes else {
        return Vec::new();
    };
    let access = NodeAccess::new(std::sync::Arc::new(exec.clone()), servers.service.clone(), NO_RUN);
    let mut known: Vec<TokenValue> = Vec::new();
    for node in servers.all.iter().filter(|node| node.supervisor().is_some()) {
        let Some(target) = target_of(node) else { continue };
        let text = match access.read_agent_token(&target).await {
            Ok(text) => text,
            // Only the proof that it is rejected depends on it.
            Err(error) => {
                tracing::debug!(%error, "the agent token cannot be read");
                None
            }
        };
        let token = text.and_then(|text| value(ServerToken::parse(&text).ok()?).ok());
        known.extend(token.filter(|token| token.password() != servers.given.password() && !known.contains(token)));
    }
    known
}
