//! How the nodes are reached: the flags that `rotate`, `rollback` and `recover` share.

use std::time::Duration;

use cli::rotation::Commands;
use client::duration;
use client::error::Error;
use node_access::{NodeExec, NodeRole, ServiceOptions, UnitName};
use supervisor::SupervisorKind;

use crate::server_token::node_way::NodeWay;

const NODE_TIMEOUT: Duration = Duration::from_secs(30);

/// How nodes are reached.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct NodeFlags {
    /// Run scripts on nodes with this command, which gets them on standard input: 'ssh root@{address}'. {node} and {address} are replaced. By default, an operator does by hand what the command prints
    #[arg(long, value_name = "COMMAND", conflicts_with = "via", help_heading = "Node options")]
    node_exec: Option<String>,

    /// Run scripts on nodes in a privileged pod each, which is deleted afterwards
    #[arg(long, value_enum, value_name = "WAY", help_heading = "Node options")]
    via: Option<Via>,

    /// The image of the pods, with sh and nsenter. By default, one that the node has
    #[arg(long, value_name = "IMAGE", requires = "via", help_heading = "Node options")]
    image: Option<String>,

    /// The limit of one script on a node. The default is 30s
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, help_heading = "Node options")]
    node_timeout: Option<Duration>,

    /// The name of the service on servers. By default k3s or rke2-server
    #[arg(long, value_name = "NAME", help_heading = "Node options")]
    unit: Option<UnitName>,

    /// Restart the service with this command, which runs in sh on the node. It may return before the service is ready. By default, systemd or OpenRC
    #[arg(
        long,
        value_name = "COMMAND",
        requires = "node_exec",
        conflicts_with = "via",
        help_heading = "Node options"
    )]
    restart_command: Option<String>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Pod,
}

impl NodeFlags {
    pub(crate) fn way(&self) -> Result<NodeWay, Error> {
        let timeout = self.node_timeout.unwrap_or(NODE_TIMEOUT);
        match (&self.node_exec, self.via) {
            (Some(command), _) => NodeExec::parse(command, timeout)
                .map(NodeWay::Exec)
                .map_err(|error| Error::usage(format!("invalid value for --node-exec: {error}"))),
            (None, Some(Via::Pod)) => Ok(NodeWay::Pod {
                image: self.image.clone(),
                timeout,
            }),
            (None, None) if self.unit.is_some() => Err(Error::usage("--unit needs --node-exec or --via pod")),
            (None, None) if self.node_timeout.is_some() => {
                Err(Error::usage("--node-timeout needs --node-exec or --via pod"))
            }
            (None, None) => Ok(NodeWay::ByHand),
        }
    }

    pub(crate) fn service(&self, kind: SupervisorKind) -> ServiceOptions {
        ServiceOptions {
            unit: self.unit.clone(),
            restart_command: self.restart_command.clone(),
            ..ServiceOptions::of(kind, NodeRole::Server)
        }
    }

    pub(crate) fn typed(&self, commands: Commands) -> Commands {
        let timeout = self.node_timeout.map(duration::format);
        let flags = [
            ("--node-exec", self.node_exec.as_deref()),
            ("--via", self.via.map(|Via::Pod| "pod")),
            ("--image", self.image.as_deref()),
            ("--node-timeout", timeout.as_deref()),
            ("--unit", self.unit.as_ref().map(UnitName::as_str)),
            ("--restart-command", self.restart_command.as_deref()),
        ];
        flags.into_iter().fold(commands, |commands, (flag, value)| {
            commands.with_to_run(flag, value).with_to_recover(flag, value)
        })
    }
}
