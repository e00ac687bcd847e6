//! `kubectl bootstrap-token extend`: another end for a token, by compare-and-swap.

use bootstrap::{Expiration, tokens};
use cli::ExitCode;
use cli::app::{Context, DryRun, GlobalFlags};
use cli::rotation::force;
use client::error::{Error, Kind};
use engine::rotation::Check;

use super::create::end;
use crate::lifetime::LifetimeFlags;
use crate::report::row;
use crate::rotation::blockers::OWNER;
use crate::side::{self, Side};

/// What is typed after `kubectl bootstrap-token extend`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Extend {
    /// The id of the token
    #[arg(value_name = "ID")]
    pub id: String,

    /// How long it lives from now on.
    #[command(flatten)]
    pub lifetime: LifetimeFlags,

    /// Override a check by its name: "owner" changes a token that another program writes, and may change back
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::of(&[OWNER]))]
    pub force: Vec<Check>,

    /// Change nothing; with "server" the API server checks what would be changed
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,
}

const EXAMPLES: &str = "\
Examples:
  # Two more hours from now
  kubectl bootstrap-token extend 07401b --ttl 2h

  # Not so long after all: it ends in ten minutes
  kubectl bootstrap-token extend 07401b --ttl 10m

The time is counted from now, by the API server's clock, and takes the place of the end that is there. Kubernetes follows
at once. A token that has ended already is not brought back: make a new one.";

/// Runs it.
pub(crate) async fn run(extend: Extend, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let ttl = extend.lifetime.wanted(None)?;
    let id = side::id(&extend.id, ui)?;
    let side = Side::open(global, context)?;
    let seen = tokens::require(side.client(), &id).await?;
    let now = side.server.clock.now();
    if seen.immutable {
        return Err(
            Error::failed(format!("token {id} cannot be changed: its Secret is immutable"))
                .hint("make a new one with `create`, and revoke this one"),
        );
    }
    if let Some(owner) = seen.owner.as_ref().filter(|_| !extend.force.contains(&OWNER)) {
        return Err(
            Error::failed(format!("token {id} belongs to {owner}, which may change it back"))
                .hint("change it there; --force=owner changes it here all the same"),
        );
    }
    if seen.deleting || seen.expiration.is_over(now) {
        return Err(Error::failed(format!("token {id} has ended already"))
            .hint("make a new one with `create`: whoever let it end may have meant it"));
    }
    let wanted = ttl.map(|ttl| end(now, ttl)).transpose()?;
    let shorter = wanted.is_some_and(|end| match seen.expiration {
        Expiration::At(before) => end < before,
        _ => true,
    });
    if extend.dry_run != DryRun::Client {
        let _hold = ui.hold();
        let write = side::write(extend.dry_run == DryRun::Server);
        tokens::extend(side.client(), &seen, wanted, &write)
            .await
            .map_err(explained)?;
    }
    let (before, after) = (
        row::expires(seen.expiration),
        row::expires(wanted.map_or(Expiration::Never, Expiration::At)),
    );
    if shorter {
        ui.status("This end is sooner than the one that it had.");
    }
    let verb = if shorter { "shortened" } else { "extended" };
    ui.out(format!(
        "token {id} {verb} from {before} to {after}{}",
        extend.dry_run.suffix()
    ))?;
    Ok(ExitCode::Done)
}

fn explained(error: bootstrap::Error) -> Error {
    let (conflict, gone) = (error.is_conflict(), error.is_not_found());
    let error = Error::from(error);
    if conflict {
        error
            .of_kind(Kind::Conflict)
            .hint("somebody else has changed it meanwhile: look at it, and run this again")
    } else if gone {
        error.hint("it has ended meanwhile, or was revoked: make a new one with `create`")
    } else {
        error
    }
}
