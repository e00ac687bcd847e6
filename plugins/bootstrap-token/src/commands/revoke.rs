//! `kubectl bootstrap-token revoke`: deletes tokens, and waits until the API server really refuses them.
//!
//! Deleting is not the end: the API server remembers for 10 seconds that it has let a token in.

use std::collections::BTreeSet;
use std::time::Duration;

use bootstrap::{Answer, TokenId, TokenSecret, tokens};
use cli::ExitCode;
use cli::app::{Context, DryRun, GlobalFlags};
use cli::rotation::force;
use cli::ui::Ui;
use client::access;
use client::duration;
use client::error::{Error, Kind};
use engine::rotation::Check;
use futures::stream::{self, StreamExt as _};
use tokio::sync::OnceCell;

use crate::controller::LOGIN;
use crate::proof::{self, End};
use crate::report::row;
use crate::rotation::blockers::OWNER;
use crate::servers::{Heard, ServerFlags, Servers};
use crate::side::{self, Side};

/// How many tokens are dealt with at once.
const AT_ONCE: usize = 8;

/// What is typed after `kubectl bootstrap-token revoke`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "selector", "expired"]))]
pub(crate) struct Revoke {
    /// The ids of the tokens
    #[arg(value_name = "ID", conflicts_with_all = ["selector", "expired"])]
    pub ids: Vec<String>,

    /// All tokens whose Secret's labels match, such as env=test,tier!=gold
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Those that have ended, by the API server's clock; with -l, of those that match
    #[arg(long)]
    pub expired: bool,

    /// Do not ask before deleting
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// Delete nothing; with "server" the API server checks what would be deleted
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,

    /// Override a check by its name: "owner" revokes a token that another program writes, and may create again
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::of(&[OWNER]))]
    pub force: Vec<Check>,

    /// How long to wait until the API server refuses them: it remembers a success for 10s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub timeout: Duration,

    /// Whom to ask.
    #[command(flatten)]
    pub servers: ServerFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Take one token back
  kubectl bootstrap-token revoke 07401b

  # All that were made for a rack, without a question
  kubectl bootstrap-token revoke -l rack=7 --yes

  # What the cleaner has left
  kubectl bootstrap-token revoke --expired

Exit codes: 0 every token is refused, 1 failed, 2 usage, 124 deleted, but still accepted when the time was over.";

const CONSEQUENCES: &str = "\
Nodes that have joined go on: they have certificates of their own.
Nodes that are rebuilt or reset, or were away until their certificate had ended, need another token to come back.
A certificate that somebody got with a token stays valid until its end: revoking the token does not take it back.";

/// Runs it.
pub(crate) async fn run(revoke: Revoke, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let ids = revoke.ids.iter().map(|typed| side::id(typed, ui));
    let ids: BTreeSet<TokenId> = ids.collect::<Result<_, _>>()?;
    let side = Side::open(global, context)?;
    let servers = Servers::new(&side.connection, &revoke.servers);
    if let Some(server) = servers.of_another_cluster(side.client()).await? {
        return Err(Error::failed(format!("{server} is an API server of another cluster"))
            .hint("give the addresses of this cluster's API servers with --api-server"));
    }
    let (mut targets, mut failures) = targets(&revoke, ids, &side).await?;
    let login = access::current_user(side.client()).await?;
    let forced = revoke.force.contains(&OWNER);
    targets.retain(|target| match refusal(target, login.as_deref(), forced) {
        Some(error) => {
            failures.push(error);
            false
        }
        None => true,
    });
    if targets.is_empty() && failures.is_empty() {
        ui.status("No bootstrap tokens found.");
        return Ok(ExitCode::Done);
    }
    if !targets.is_empty() {
        tell(&targets, &side, ui);
        if revoke.dry_run == DryRun::None && !ui.confirm("", revoke.yes).await? {
            ui.status("Nothing was revoked.");
            return Ok(ExitCode::Failed);
        }
    }
    let asked = Asked {
        servers,
        patience: revoke.timeout,
        others: OnceCell::new(),
    };
    let work = targets.iter().map(|target| one(target, &revoke, &side, &asked, ui));
    let work: Vec<_> = work.collect();
    let mut results = stream::iter(work).buffered(AT_ONCE);
    while let Some(result) = results.next().await {
        match result {
            Ok(line) => ui.out(line)?,
            Err(error) => failures.push(error),
        }
    }
    sum_up(failures, ui)
}

/// Whom every token of one command is asked about.
struct Asked {
    servers: Servers,
    patience: Duration,
    /// Whether there may be API servers besides; found out once.
    others: OnceCell<bool>,
}

/// What is to be revoked, and what is not there.
async fn targets(
    revoke: &Revoke,
    ids: BTreeSet<TokenId>,
    side: &Side,
) -> Result<(Vec<TokenSecret>, Vec<Error>), Error> {
    if revoke.ids.is_empty() {
        let mut found = tokens::list(side.client(), revoke.selector.as_deref()).await?;
        let now = side.server.clock.now();
        found.retain(|secret| !revoke.expired || secret.expiration.is_over(now));
        return Ok((found, Vec::new()));
    }
    let (mut targets, mut failures) = (Vec::new(), Vec::new());
    for id in ids {
        match tokens::require(side.client(), &id).await {
            Ok(secret) => targets.push(secret),
            Err(error @ bootstrap::Error::NoSuchToken(_)) => failures.push(error.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((targets, failures))
}

/// Why a token is not revoked.
fn refusal(target: &TokenSecret, login: Option<&str>, forced: bool) -> Option<Error> {
    let id = target.title();
    if login.and_then(|user| user.strip_prefix(LOGIN)) == Some(id) {
        let error = Error::failed(format!("this command logs in with token {id}, which would be revoked"));
        return Some(error.hint("use a kubeconfig with another login"));
    }
    let owner = target.owner.as_ref().filter(|_| !forced)?;
    let error = Error::failed(format!("token {id} belongs to {owner}, which may create it again"));
    Some(error.hint("remove it there; --force=owner revokes it all the same"))
}

/// What is going to happen, and what that means.
fn tell(targets: &[TokenSecret], side: &Side, ui: &Ui) {
    let now = side.server.clock.now();
    let many = if targets.len() == 1 {
        "1 bootstrap token".to_owned()
    } else {
        format!("{} bootstrap tokens", targets.len())
    };
    ui.status(format!("To be revoked: {many}"));
    for target in targets {
        let description = Some(target.description.as_str()).filter(|text| !text.is_empty());
        let description = description.map_or(String::new(), |text| format!("   {text}"));
        ui.status(format!(
            "  {}   {}{description}",
            target.title(),
            row::ttl(target.expiration, now)
        ));
    }
    ui.status(CONSEQUENCES);
    if targets.iter().any(TokenSecret::is_of_uploaded_certificates) {
        ui.warn(
            "with one of them goes Secret kube-system/kubeadm-certs: control-plane nodes that are joining by a certificate key fail",
        );
    }
}

/// Revokes one; gives the line that says so.
async fn one(target: &TokenSecret, revoke: &Revoke, side: &Side, asked: &Asked, ui: &Ui) -> Result<String, Error> {
    let id = target.title();
    if ui.interrupt().is_cancelled() {
        return Err(Error::new(
            Kind::Interrupted,
            format!("interrupted: token {id} was left as it is"),
        ));
    }
    let _hold = ui.hold();
    if revoke.dry_run != DryRun::Client {
        let write = side::write(revoke.dry_run == DryRun::Server);
        tokens::delete(side.client(), target, &write).await.map_err(|error| {
            let replaced = error.is_conflict();
            let error = Error::from(error);
            if replaced {
                error.hint("another token has taken its place meanwhile, which was left alone")
            } else {
                error
            }
        })?;
    }
    if revoke.dry_run != DryRun::None {
        return Ok(format!("token {id} revoked{}", revoke.dry_run.suffix()));
    }
    let Some(token) = &target.token else {
        ui.warn(format!(
            "token {id} is deleted; that it is refused was not tried, for its Secret held no whole token"
        ));
        return Ok(format!("token {id} deleted"));
    };
    let refused = async {
        let others = asked.others.get_or_init(|| asked.servers.may_be_more(side.client()));
        proof::until_refused(&asked.servers, token, *others.await, asked.patience).await
    };
    let end = tokio::select! {
        end = refused => end?,
        () = ui.interrupt().cancelled() => {
            return Err(Error::new(Kind::Interrupted, format!(
                "interrupted: token {id} is deleted, and may be accepted for up to 10 seconds"
            )));
        }
    };
    in_words(id, end, asked.patience)
}

fn in_words(id: &str, end: End, patience: Duration) -> Result<String, Error> {
    let waited = duration::format(patience);
    let late = |message| Error::new(Kind::TimedOut, message);
    Err(match end {
        End::Refused => return Ok(format!("token {id} revoked")),
        End::Remembered => late(format!(
            "token {id} is deleted; the API server refuses it, and after {waited} another one may remember it yet"
        ))
        .hint("an API server remembers for 10 seconds that it has let a token in: give a longer --timeout")
        .hint("--api-server URL asks one of several API servers; repeat it for each"),
        End::Not(Heard {
            server,
            answer: Answer::Unknown(why),
        }) => Error::failed(format!(
            "token {id} is deleted, and it could not be found out whether {server} refuses it: {why}"
        )),
        End::Not(Heard { server, .. }) => late(format!(
            "token {id} is deleted, and was still accepted by {server} after {waited}"
        ))
        .hint(format!(
            "somebody may have made it again: see `kubectl bootstrap-token list`, and revoke {id} once more"
        )),
    })
}

/// All failures are told; the last one gives the exit code.
fn sum_up(mut failures: Vec<Error>, ui: &Ui) -> Result<ExitCode, Error> {
    let Some(last) = failures.pop() else {
        return Ok(ExitCode::Done);
    };
    for failure in failures {
        ui.error(&failure);
    }
    Err(last)
}
