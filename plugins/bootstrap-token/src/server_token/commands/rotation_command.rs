//! What `server-token rotate` and `rollback` share: their flags, and the run.

use std::time::Duration;

use cli::app::{Context, GlobalFlags};
use cli::rotation::outcome::Verb;
use cli::rotation::results::{Results, RunFlags};
use cli::rotation::{Commands, Job, Target};
use client::duration;
use client::error::Error;
use engine::rotation::{Action, Check};
use node_access::{NodeAccess, NodeTarget, ServiceOptions};
use serde_json::Map;
use supervisor::node::{self, ClusterNode};
use supervisor::{ServerToken, SupervisorKind};

use super::new_value::NewValueFlags;
use super::node_flags::NodeFlags;
use crate::agent_token;
use crate::cluster::ClusterConnection;
use crate::server_token::connections::{Access, SupervisorFlags};
use crate::server_token::controller::ServerTokenController;
use crate::server_token::given_token::GivenToken;
use crate::server_token::lease;
use crate::server_token::node_way::{NO_RUN, NodeWay};
use crate::server_token::rotation::blockers::{UNMEASURED, UNPIN};
use crate::server_token::rotation::observed::Repin;
use crate::server_token::session::{Options, RotatedToken, Session};

/// The flags that `rotate` and `rollback` share.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RotationFlags {
    #[command(flatten)]
    pub supervisors: SupervisorFlags,

    #[command(flatten)]
    pub nodes: NodeFlags,

    /// Stop if a server is not ready within this time after its restart. Nothing more is restarted then. The default is 5m, and 15m on RKE2
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub restart_timeout: Option<Duration>,

    /// Wait this long between the restarts of two servers
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub pause_between: Option<Duration>,

    /// Restart only this server. The rotation then stops, and the same command without this flag finishes it
    #[arg(long, value_name = "NODE")]
    pub only: Option<String>,

    #[command(flatten)]
    pub run: RunFlags,
}

/// The servers of a cluster, and the server token.
pub(crate) struct Servers {
    pub(crate) cluster: ClusterConnection,
    pub(crate) all: Vec<ClusterNode>,
    pub(crate) kind: SupervisorKind,
    pub(crate) service: ServiceOptions,
    pub(crate) nodes: NodeWay,
    pub(crate) access: Access,
    pub(crate) given: ServerToken,
}

impl RotationFlags {
    /// Reads the server token and lists the servers.
    pub(crate) async fn open(&self, global: &GlobalFlags, context: &Context) -> Result<Servers, Error> {
        let ui = &context.ui;
        let nodes = self.nodes.way()?;
        let token = self.supervisors.token(ui).await?;
        let cluster = ClusterConnection::open(global, context)?;
        // Also sets the server's clock, by which all deadlines are.
        let all = node::list(cluster.client()).await?;
        self.supervisors.addresses.servers(&all)?;
        let kind = all.iter().find_map(ClusterNode::supervisor);
        let kind = kind.ok_or_else(|| Error::failed("no server of the cluster has a Node"))?;
        let service = self.nodes.service(kind);
        let token = match token {
            Some(token) => token,
            None => read_from_node(&all, &nodes, &service).await?,
        };
        let access = Access::new(&self.supervisors.addresses, token.ca_hash(), &cluster, ui)?;
        let given = token
            .into_server_token()
            .map_err(|error| Error::usage(error.to_string()))?;
        Ok(Servers {
            cluster,
            all,
            kind,
            service,
            nodes,
            access,
            given,
        })
    }

    pub(crate) fn timeout(&self, kind: SupervisorKind) -> Duration {
        self.restart_timeout.unwrap_or(match kind {
            SupervisorKind::K3s => Duration::from_mins(5),
            SupervisorKind::Rke2 => Duration::from_mins(15),
        })
    }

    /// The commands of a group, with what of this command belongs to every later one too. It is not in the Lease.
    pub(crate) fn commands(&self, group: &str, global: &GlobalFlags) -> Commands {
        let commands = Commands::new::<crate::cli::BootstrapToken>("", global).in_group(group);
        let commands = self.supervisors.typed(commands);
        let duration = |value: Option<Duration>| value.map(duration::format);
        let commands = commands.with_to_recover("--restart-timeout", duration(self.restart_timeout).as_deref());
        self.nodes
            .typed(commands)
            .with_to_run("--restart-timeout", duration(self.restart_timeout).as_deref())
            .with_to_run("--pause-between", duration(self.pause_between).as_deref())
    }
}

/// The checks that a resumed run overrides too.
pub(crate) fn forced(commands: Commands, forced: &[Check]) -> Commands {
    let forced = [UNPIN, UNMEASURED].into_iter().filter(|check| forced.contains(check));
    forced.fold(commands, |commands, check| {
        commands.with_to_run("--force", Some(check.name))
    })
}

/// Where the new token comes from and goes to, and what is configured at the end. Only `rotate` has these.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct NewTokenFlags {
    #[command(flatten)]
    pub value: NewValueFlags,

    /// At the end, write the new token into the configuration of the servers that had one. Needs access to nodes
    #[arg(long)]
    pub repin: bool,

    /// With --repin, write the new token into the configuration of agents too
    #[arg(long, requires = "repin")]
    pub agents: bool,
}

impl NewTokenFlags {
    fn repin(&self) -> Repin {
        match (self.repin, self.agents) {
            (false, _) => Repin::Nowhere,
            (true, false) => Repin::Servers,
            (true, true) => Repin::ServersAndAgents,
        }
    }

    fn typed(&self, commands: Commands) -> Commands {
        let mut commands = self.value.typed(commands);
        for (is_set, flag) in [(self.repin, "--repin"), (self.agents, "--agents")] {
            if is_set {
                commands = commands.switched_on_to_rotate(flag);
            }
        }
        commands
    }
}

/// One command.
pub(super) struct RotationCommand<'a> {
    pub(super) verb: Verb,
    pub(super) flags: &'a RotationFlags,
    pub(super) new: &'a NewTokenFlags,
    pub(super) forced: Vec<Check>,
    pub(super) global: &'a GlobalFlags,
    pub(super) context: &'a Context,
}

impl RotationCommand<'_> {
    /// Runs the command and prints the result. Also returns the name of the outcome.
    pub(super) async fn run(self) -> Result<(&'static str, Result<(), Error>), Error> {
        let (ui, flags) = (&self.context.ui, self.flags);
        let results = Results::new(ui, &flags.run, true)?;
        if self.new.repin && matches!(flags.nodes.way()?, NodeWay::ByHand) {
            return Err(Error::usage("--repin needs --node-exec or --via pod"));
        }
        let given_new = self.new.value.given()?;
        let Servers {
            cluster,
            kind,
            service,
            nodes,
            access,
            given,
            ..
        } = flags.open(self.global, self.context).await?;
        let [force_lock, force_journal] = [Check::LOCK, Check::JOURNAL].map(|check| self.forced.contains(&check));
        let target = self.target();
        let options = Options {
            rotates: RotatedToken::Server,
            kind,
            given,
            given_new,
            output: self.new.value.output(),
            nodes,
            service,
            restart_timeout: flags.timeout(kind),
            pause_between: flags.pause_between,
            only: flags.only.clone(),
            repin: self.new.repin(),
            forced: self.forced.clone(),
            commands: target.commands.clone(),
        };
        let session = Session::new(ui, &cluster, &flags.supervisors, access, options)?;
        let job = Job {
            ui,
            controller: &ServerTokenController::new(session),
            target: &target,
            verb: self.verb,
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

    fn target(&self) -> Target {
        Target {
            object: "server-token".to_owned(),
            name: "server-token".to_owned(),
            display: "the server token".to_owned(),
            details: Map::new(),
            action: Action::ROTATE,
            restored: "every server accepts the old token as before",
            commands: commands(self.flags, self.new, &self.forced, self.global),
            lease: lease::name(),
        }
    }
}

/// The commands that resume a rotation or roll it back, with these options. They are not in the Lease.
fn commands(flags: &RotationFlags, new: &NewTokenFlags, forced: &[Check], global: &GlobalFlags) -> Commands {
    let commands = flags.commands("server-token", global);
    let commands = commands.or_of(agent_token::commands::other_kind(flags.commands("agent-token", global)));
    let commands = self::forced(commands, forced);
    new.typed(commands)
}

/// The token in `server/token` of the first server whose file can be read.
async fn read_from_node(nodes: &[ClusterNode], way: &NodeWay, service: &ServiceOptions) -> Result<GivenToken, Error> {
    let missing = || Error::usage("pass the current server token with --token-file or --token-stdin");
    let NodeWay::Exec(exec) = way else {
        return Err(missing());
    };
    let access = NodeAccess::new(std::sync::Arc::new(exec.clone()), service.clone(), NO_RUN);
    let mut last = missing();
    for node in nodes.iter().filter(|node| node.supervisor().is_some()) {
        let Some(target) = target_of(node) else { continue };
        match access.read_token(&target).await {
            Ok(Some((text, _))) => {
                return GivenToken::of_line(&text).map_err(|error| {
                    Error::failed(format!("invalid token in server/token of {}: {error}", node.name))
                });
            }
            Ok(None) => {}
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

pub(crate) fn target_of(node: &ClusterNode) -> Option<NodeTarget> {
    NodeTarget::new(&node.name, node.internal_ips.first()?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::server_token::commands::rotate::Rotate;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        rotate: Rotate,
    }

    fn parse(flags: &[&str]) -> Result<Rotate, clap::Error> {
        Line::try_parse_from(["rotate"].iter().chain(flags)).map(|line| line.rotate)
    }

    fn commands(flags: &[&str]) -> Commands {
        let rotate = parse(flags).unwrap();
        super::commands(&rotate.rotation, &rotate.new, &rotate.force, &GlobalFlags::default())
    }

    #[test]
    fn the_resume_command_has_what_is_not_in_the_lease() {
        let plain = commands(&["--token-file", "old", "--write-token", "new"]);
        assert_eq!(
            plain.rotate(),
            "kubectl bootstrap-token server-token rotate --token-file old --write-token new"
        );
        assert_eq!(
            plain.recover(),
            "kubectl bootstrap-token server-token recover --token-file old --write-token new"
        );
        assert_eq!(
            plain.rollback(),
            "kubectl bootstrap-token server-token rollback --token-file old"
        );
        let nodes = [
            "--node-exec",
            "ssh root@{address}",
            "--node-timeout",
            "5s",
            "--unit",
            "k3s-server",
        ];
        let restarts = [
            "--restart-timeout",
            "10m",
            "--pause-between",
            "1m",
            "--restart-command",
            "reboot",
        ];
        let others = [
            "--server-address",
            "s1=10.0.0.1:7000,7001",
            "--force",
            "unmeasured,lock",
            "--print-token",
        ];
        assert_eq!(
            commands(&[&nodes[..], &restarts, &others].concat()).rotate(),
            "kubectl bootstrap-token server-token rotate --server-address s1=10.0.0.1:7000,7001 --node-exec \
             'ssh root@{address}' --node-timeout 5s --unit k3s-server --restart-command reboot --restart-timeout 10m0s \
             --pause-between 1m0s --force unmeasured --print-token"
        );
    }

    #[test]
    fn options_of_nodes_need_a_way_to_them() {
        for flags in [&["--unit", "k3s-server"][..], &["--node-timeout", "5s"]] {
            assert!(parse(flags).unwrap().rotation.nodes.way().is_err(), "{flags:?}");
            let flags: Vec<&str> = flags.iter().copied().chain(["--via", "pod"]).collect();
            assert!(parse(&flags).unwrap().rotation.nodes.way().is_ok(), "{flags:?}");
        }
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for flags in [
            &["--write-token", "new", "--print-token"][..],
            &["--print-token", "-o", "json"],
            &["--agents"],
            &["--image", "busybox"],
            &["--node-exec", "ssh {address}", "--via", "pod"],
            &["--via", "pod", "--restart-command", "true"],
        ] {
            assert!(parse(flags).is_err(), "{flags:?}");
        }
    }
}
