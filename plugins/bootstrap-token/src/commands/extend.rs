//! `kubectl bootstrap-token extend`: changes the expiry of a token.

use bootstrap::{Expiration, tokens};
use cli::ExitCode;
use cli::app::{Context, DryRun, GlobalFlags};
use cli::rotation::force;
use client::error::{Error, Kind};
use engine::rotation::Check;

use crate::cluster::{self, ClusterConnection};
use crate::lifetime::{self, LifetimeFlags};
use crate::report::row;
use crate::rotation::blockers::OWNER;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Extend {
    /// The id of the token
    #[arg(value_name = "ID")]
    pub id: String,

    #[command(flatten)]
    pub lifetime: LifetimeFlags,

    /// Override a check: "owner" changes a token that another program manages, and may revert
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::of(&[OWNER]))]
    pub force: Vec<Check>,

    /// Must be "none", "server", or "client". If client strategy, only print what would be changed. If server strategy, submit a server-side dry run
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,
}

const EXAMPLES: &str = "\
Examples:
  # Let a token expire in two hours
  kubectl bootstrap-token extend 07401b --ttl 2h

  # Shorten its lifetime to ten minutes
  kubectl bootstrap-token extend 07401b --ttl 10m

The time counts from now, by the API server's clock. It replaces the current expiry. An expired token cannot be extended: create a new one.";

pub(crate) async fn run(extend: Extend, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let ttl = extend.lifetime.checked(None)?;
    let id = cluster::id(&extend.id, ui, global)?;
    let cluster = ClusterConnection::open(global, context)?;
    let current = cluster.require(&id).await?;
    let create = cluster.command("create", "");
    let now = cluster.server.clock.now();
    if current.immutable {
        return Err(
            Error::failed(format!("token {id} cannot be changed: its Secret is immutable"))
                .hint(format!("create a new token with `{create}`, and revoke this one")),
        );
    }
    if let Some(owner) = current.owner.as_ref().filter(|_| !extend.force.contains(&OWNER)) {
        return Err(
            Error::failed(format!("token {id} is managed by {owner}, which may revert the change"))
                .hint("change it there, or override this check with --force=owner"),
        );
    }
    if current.deleting || current.expiration.is_expired(now) {
        return Err(Error::failed(format!("token {id} has expired or is being deleted"))
            .hint(format!("create a new token with `{create}`")));
    }
    let expiry = ttl.map(|ttl| lifetime::expiry(now, ttl)).transpose()?;
    let shorter = expiry.is_some_and(|expiry| match current.expiration {
        Expiration::At(before) => expiry < before,
        _ => true,
    });
    if extend.dry_run != DryRun::Client {
        let _hold = ui.hold();
        let write = cluster::write(extend.dry_run == DryRun::Server);
        tokens::set_expiration(cluster.client(), &current, expiry, &write)
            .await
            .map_err(|error| explained(error, &create))?;
    }
    let before = row::expires(current.expiration);
    let after = row::expires(expiry.map_or(Expiration::Never, Expiration::At));
    if shorter {
        ui.status("The new expiry is earlier than the current one.");
    }
    let verb = if shorter { "shortened" } else { "extended" };
    let suffix = extend.dry_run.suffix();
    ui.out(format!("token {id} {verb} from {before} to {after}{suffix}"));
    Ok(ExitCode::Done)
}

fn explained(error: bootstrap::Error, create: &str) -> Error {
    let (conflict, not_found) = (error.is_conflict(), error.is_not_found());
    let error = Error::from(error);
    if conflict {
        error
            .of_kind(Kind::Conflict)
            .hint("the token was changed concurrently: check its status, and run the same command again")
    } else if not_found {
        error.hint(format!(
            "it has expired or was revoked: create a new token with `{create}`"
        ))
    } else {
        error
    }
}
