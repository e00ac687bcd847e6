//! `kubectl bootstrap-token server-token recover`: mends servers that a change of the token has broken.

use std::path::PathBuf;
use std::time::Duration;

use cli::ExitCode;
use cli::app::{Context, DryRun, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::Commands;
use cli::rotation::results::RunFlags;
use cli::ui::Ui;
use client::duration;
use client::error::Error;
use node_access::ServiceOptions;
use supervisor::{ServerToken, SupervisorKind};

use super::new_value::NewValueFlags;
use super::node_flags::NodeFlags;
use crate::agent_token;
use crate::cluster::ClusterConnection;
use crate::server_token::connections::{Access, ServerFlags};
use crate::server_token::given_token::GivenToken;
use crate::server_token::node_way::NodeWay;
use crate::server_token::recover::{RecoverOptions, Recoverer};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Recover {
    /// Read a server token that the cluster has had from this file, which only its owner may access (0600). Can be repeated; the first one is preferred
    #[arg(long = "token-file", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    token_files: Vec<PathBuf>,

    /// Read a server token from standard input
    #[arg(long)]
    token_stdin: bool,

    #[command(flatten)]
    addresses: ServerFlags,

    #[command(flatten)]
    new: NewValueFlags,

    #[command(flatten)]
    nodes: NodeFlags,

    #[command(flatten)]
    service: ServiceFlags,

    /// Stop if nothing changes within this time, for example if a server that was started is not ready. The default is 5m, and 15m on RKE2
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    restart_timeout: Option<Duration>,

    #[command(flatten)]
    run: RunFlags,
}

/// What replaces systemd and OpenRC, beside `--restart-command`.
#[derive(clap::Args, Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the names of flags")]
struct ServiceFlags {
    /// Stop the service with this command, which runs in sh on the node and returns when the service has stopped
    #[arg(
        long,
        value_name = "COMMAND",
        requires = "node_exec",
        conflicts_with = "via",
        help_heading = "Node options"
    )]
    stop_command: Option<String>,

    /// Start the service with this command, which runs in sh on the node. It may return before the service is ready. It should not start the service again if it fails
    #[arg(
        long,
        value_name = "COMMAND",
        requires = "node_exec",
        conflicts_with = "via",
        help_heading = "Node options"
    )]
    start_command: Option<String>,

    /// Print the last lines of the log of the service with this command, which runs in sh on the node
    #[arg(long, value_name = "COMMAND", requires = "node_exec", help_heading = "Node options")]
    log_command: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Diagnose every server, and print what would be done next
  kubectl bootstrap-token server-token recover --token-file new --token-file old \\
      --node-exec 'ssh root@{address}' --dry-run

  # Mend the servers after `k3s token rotate`, with every token that the cluster has had
  kubectl bootstrap-token server-token recover --token-file new --token-file old \\
      --write-token newest --node-exec 'ssh root@{address}'

  # Mend them without access to nodes: an operator does there what the command prints
  kubectl bootstrap-token server-token recover --token-file new --token-file old \\
      --write-token newest

  # Bring back servers while no API server answers
  kubectl bootstrap-token server-token recover --token-file old --write-token newest \\
      --server-address s1=10.0.0.1 --node-exec 'ssh root@{address}'

It can be run in every state, again and again. No file but cred/passwd is ever deleted, and that only if the log of the server names it and no other file. A server that names another one is reported, and nothing is changed.

Exit codes: 0 recovered, or nothing to do, 1 refused or failed, 2 usage, 4 pending (run it again), 5 held by another run, 130 interrupted";

impl Recover {
    /// The given tokens, the ones to prefer first, and the new one among them.
    async fn tokens(&self, ui: &Ui) -> Result<(Vec<ServerToken>, Option<ServerToken>), Error> {
        let new = self
            .new
            .given()?
            .map(|value| GivenToken::server_token(value.password(), "--new-token-file"));
        let new = new.transpose()?;
        let mut tokens: Vec<ServerToken> = new.clone().into_iter().collect();
        let given = GivenToken::server_tokens(&self.token_files, self.token_stdin, ui).await?;
        tokens.extend(given.into_iter().map(|(_, token)| token));
        Ok((tokens, new))
    }

    fn commands(&self, global: &GlobalFlags) -> Commands {
        let group = |group| Commands::new::<crate::cli::BootstrapToken>("", global).in_group(group);
        let of_agents = self.nodes.typed(self.addresses.typed(group("agent-token")));
        let of_agents = agent_token::commands::other_kind(of_agents);
        let commands = group("server-token").or_of(of_agents);
        let path = |path: &PathBuf| path.display().to_string();
        let mut files = self.token_files.iter().map(path);
        let commands = commands.with("--token-file", files.next().as_deref());
        let commands = files.fold(commands, |commands, file| {
            commands.with_to_recover("--token-file", Some(&file))
        });
        let commands = if self.token_stdin {
            commands.switched_on_to_recover("--token-stdin")
        } else {
            commands
        };
        let commands = self.nodes.typed(self.addresses.typed(commands));
        let commands = self.new.typed(commands);
        let ServiceFlags {
            stop_command,
            start_command,
            log_command,
        } = &self.service;
        let timeout = self.restart_timeout.map(duration::format);
        [
            ("--stop-command", stop_command),
            ("--start-command", start_command),
            ("--log-command", log_command),
            ("--restart-timeout", &timeout),
        ]
        .into_iter()
        .fold(commands, |commands, (flag, value)| {
            commands.with_to_recover(flag, value.as_deref())
        })
    }
}

pub(crate) async fn run(recover: Recover, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let (flags, format) = OutputFlags::of_page(recover.run.output.as_ref(), "recover")?;
    let nodes = recover.nodes.way()?;
    let (tokens, given_new) = recover.tokens(ui).await?;
    if tokens.is_empty() && !matches!(nodes, NodeWay::Exec(_)) {
        return Err(
            Error::usage("pass each token that the cluster has had with --token-file or --token-stdin")
                .hint("with --node-exec, the tokens that servers have in their files are read"),
        );
    }
    let cluster = ClusterConnection::open(global, context)?;
    let hash = tokens.iter().find_map(|token| token.ca_hash.as_ref());
    let access = Access::new(&recover.addresses, hash, &cluster, ui)?;
    let ServiceFlags {
        stop_command,
        start_command,
        log_command,
    } = recover.service.clone();
    let options = RecoverOptions {
        tokens,
        given_new,
        output: recover.new.output(),
        nodes,
        service: ServiceOptions {
            stop_command,
            start_command,
            log_command,
            ..recover.nodes.service(SupervisorKind::K3s)
        },
        restart_timeout: recover.restart_timeout,
        yes: recover.run.yes,
        dry_run: recover.run.dry_run != DryRun::None,
        is_data: recover.run.dry_run != DryRun::None && matches!(format, OutputFormat::Table),
        commands: recover.commands(global),
    };
    let recoverer = Recoverer::new(ui, &cluster, &recover.addresses, access, options);
    let (document, ended) = recoverer.run().await;
    if let Some(document) = document
        && !matches!(format, OutputFormat::Table)
    {
        output::print_value(ui, &flags, &document)?;
    }
    ended.map(|()| ExitCode::Done)
}
