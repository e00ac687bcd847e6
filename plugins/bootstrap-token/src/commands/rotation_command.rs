//! What `rotate` and `rollback` share: their flags, and the run for one token.

use std::time::Duration;

use bootstrap::TokenId;
use cli::app::{Context, GlobalFlags};
use cli::rotation::outcome::Verb;
use cli::rotation::results::{Results, RunFlags};
use cli::rotation::{Commands, Job};
use client::duration;
use client::error::Error;
use engine::rotation::Check;

use crate::cluster::ClusterConnection;
use crate::controller::{Options, TokenController};
use crate::delivery::DeliveryTarget;
use crate::lifetime::{DEFAULT, LONG};
use crate::report::target;
use crate::rotation::blockers::{CLUSTER, TARGET};
use crate::servers::{ServerFlags, Servers};

/// The flags that `rotate` and `rollback` share.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RotationFlags {
    #[command(flatten)]
    pub run: RunFlags,

    /// How long both tokens stay valid, so that nodes that have read the old one can join. kubeadm join takes at most 10m
    #[arg(long, value_name = "DURATION", default_value = OVERLAP, value_parser = duration::parse)]
    pub overlap: Duration,

    /// Roll back if the new token is not proven within this time
    #[arg(long, value_name = "DURATION", default_value = TIMEOUT, value_parser = duration::parse)]
    pub timeout: Duration,

    #[command(flatten)]
    pub servers: ServerFlags,
}

const OVERLAP: &str = "10m";
const TIMEOUT: &str = "5m";

impl RotationFlags {
    /// The options of a run.
    pub(super) fn options(
        &self,
        ttl: Option<Duration>,
        deliver: Option<DeliveryTarget>,
        forced: Vec<Check>,
    ) -> Options {
        Options {
            ttl,
            overlap: self.overlap,
            timeout: self.timeout,
            deliver,
            forced,
        }
    }

    /// The commands that resume a rotation or roll it back, with these options. They are not in the Lease.
    fn commands(&self, id: &TokenId, options: &Options, global: &GlobalFlags) -> Commands {
        let unless_default = |value: Duration, default: &str| {
            let is_default = duration::parse(default).is_ok_and(|default| default == value);
            (!is_default).then(|| duration::format(value))
        };
        let commands = Commands::new::<crate::cli::BootstrapToken>(id.as_str(), global)
            .with_to_run("--overlap", unless_default(self.overlap, OVERLAP).as_deref())
            .with_to_run("--timeout", unless_default(self.timeout, TIMEOUT).as_deref());
        let named = self.servers.named.iter();
        let commands = named.fold(commands, |commands, url| {
            commands.with_to_run("--api-server", Some(url.as_str().trim_end_matches('/')))
        });
        let forced = [TARGET, CLUSTER].into_iter();
        let forced = forced.filter(|check| options.forced.contains(check));
        let commands = forced.fold(commands, |commands, check| {
            commands.with_to_run("--force", Some(check.name))
        });
        let target = options.deliver.as_ref().map(DeliveryTarget::to_string);
        let commands = commands.with_to_rotate("--deliver", target.as_deref());
        match options.ttl {
            None => commands.switched_on_to_rotate("--never-expires"),
            Some(DEFAULT) => commands,
            Some(ttl) => {
                let commands = commands.with_to_rotate("--ttl", Some(&duration::format(ttl)));
                if ttl > LONG {
                    commands.switched_on_to_rotate("--allow-long")
                } else {
                    commands
                }
            }
        }
    }
}

/// One command for one token.
pub(super) struct RotationCommand<'a> {
    pub(super) verb: Verb,
    pub(super) flags: &'a RotationFlags,
    pub(super) options: Options,
    pub(super) global: &'a GlobalFlags,
    pub(super) context: &'a Context,
}

impl RotationCommand<'_> {
    /// Runs the command and prints the result. Also returns the name of the outcome.
    pub(super) async fn run(self, id: TokenId) -> Result<(&'static str, Result<(), Error>), Error> {
        let (ui, run) = (&self.context.ui, &self.flags.run);
        let results = Results::new(ui, run, true)?;
        let cluster = ClusterConnection::open(self.global, self.context)?;
        // Sets the server's clock, by which all deadlines are.
        cluster.version().await?;
        let target = target::target(&id, self.flags.commands(&id, &self.options, self.global));
        let servers = Servers::new(&cluster.connection, &self.flags.servers);
        let [force_lock, force_journal] =
            [Check::LOCK, Check::JOURNAL].map(|check| self.options.forced.contains(&check));
        let job = Job {
            ui,
            controller: &TokenController::new(&cluster, servers, id, self.options),
            target: &target,
            verb: self.verb,
            yes: run.yes,
            dry_run: run.dry_run,
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
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::commands::rotate::Rotate;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        rotate: Rotate,
    }

    fn commands(flags: &[&str]) -> Commands {
        let Line { rotate } = Line::try_parse_from(["rotate", "07401b"].iter().chain(flags)).unwrap();
        let ttl = rotate.lifetime.checked(Some(DEFAULT)).unwrap();
        let options = rotate.rotation.options(ttl, rotate.deliver, rotate.force);
        let id = rotate.id.parse().unwrap();
        rotate.rotation.commands(&id, &options, &GlobalFlags::default())
    }

    #[test]
    fn the_resume_command_has_what_is_not_in_the_lease() {
        let plain = commands(&[]);
        assert_eq!(plain.rotate(), "kubectl bootstrap-token rotate 07401b");
        let flags = [
            "--overlap=7m",
            "--timeout=3m",
            "--api-server=https://a:6443",
            "--force=target,owner",
        ];
        let of_rotate = ["--deliver", "file:/srv/my file", "--ttl=30h", "--allow-long"];
        let commands_of_all = commands(&[&flags[..], &of_rotate].concat());
        let common = "--overlap 7m0s --timeout 3m0s --api-server https://a:6443 --force target";
        assert_eq!(
            commands_of_all.rollback(),
            format!("kubectl bootstrap-token rollback 07401b {common}")
        );
        assert_eq!(
            commands_of_all.rotate(),
            format!(
                "kubectl bootstrap-token rotate 07401b {common} --deliver 'file:/srv/my file' --ttl 30h0m0s --allow-long"
            )
        );
        let unlimited = commands(&["--never-expires"]);
        assert!(unlimited.rotate().ends_with(" --never-expires"));
    }
}
