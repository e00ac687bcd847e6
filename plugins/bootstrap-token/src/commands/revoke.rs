//! `kubectl bootstrap-token revoke`: deletes tokens, and waits until the API servers reject them.

use std::collections::BTreeSet;
use std::time::Duration;

use bootstrap::token::USER_PREFIX;
use bootstrap::{ProbeResult, TokenId, TokenSecret, tokens};
use cli::app::{Context, DryRun, GlobalFlags};
use cli::rotation::force;
use cli::ui::Ui;
use cli::{ExitCode, Failures};
use client::access;
use client::duration;
use client::error::{Error, Kind};
use engine::rotation::Check;
use futures::stream::{self, StreamExt as _};
use tokio::sync::OnceCell;

use crate::cluster::{self, ClusterConnection};
use crate::probe::{self, RevocationResult};
use crate::report::{row, target};
use crate::rotation::BootstrapToken;
use crate::rotation::blockers::OWNER;
use crate::servers::{ServerFlags, ServerResult, Servers};

/// How many tokens are revoked at the same time.
const PARALLEL: usize = 8;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "selector", "expired"]))]
pub(crate) struct Revoke {
    /// The ids of the tokens
    #[arg(value_name = "ID", conflicts_with_all = ["selector", "expired"])]
    pub ids: Vec<String>,

    /// Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.(e.g. -l key1=value1,key2=value2,key3 in (value3)). Matching objects must satisfy all of the specified label constraints.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Only tokens that have expired, by the API server's clock
    #[arg(long)]
    pub expired: bool,

    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// Must be "none", "server", or "client". If client strategy, only print what would be deleted. If server strategy, submit a server-side dry run
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value_t, value_name = "MODE")]
    pub dry_run: DryRun,

    /// Override a check: "owner" revokes a token that another program manages, and may create again
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::of(&[OWNER]))]
    pub force: Vec<Check>,

    /// How long to wait until the API servers reject the tokens, which they cache for 10s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub timeout: Duration,

    #[command(flatten)]
    pub servers: ServerFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Revoke one token
  kubectl bootstrap-token revoke 07401b

  # Revoke all tokens with a label, without confirmation
  kubectl bootstrap-token revoke -l rack=7 --yes

  # Delete expired tokens that the token cleaner has not deleted
  kubectl bootstrap-token revoke --expired

Exit codes: 0 all tokens are rejected, 1 failed, 2 usage, 124 deleted, but still accepted after --timeout.";

const CONSEQUENCES: &str = "\
Nodes that have joined are not affected: they have their own certificates.
Nodes that are rebuilt or reset, or whose certificate expired while they were off, need another token to join.
Certificates that were issued to holders of the token are valid until they expire: Kubernetes cannot revoke them.";

pub(crate) async fn run(revoke: Revoke, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let ids = revoke.ids.iter().map(|text| cluster::id(text, ui, global));
    let ids: BTreeSet<TokenId> = ids.collect::<Result<_, _>>()?;
    let cluster = ClusterConnection::open(global, context)?;
    let servers = Servers::new(&cluster.connection, &revoke.servers);
    if let Some(server) = servers.of_another_cluster(cluster.client()).await? {
        return Err(Error::failed(format!("{server} is an API server of another cluster"))
            .hint("name the API servers of this cluster with --api-server"));
    }
    let (found, mut failures) = targets(&revoke, ids, &cluster, ui).await?;
    let login = access::current_user(cluster.client()).await?;
    let forced = revoke.force.contains(&OWNER);
    let mut targets = Vec::new();
    for target in found {
        match refusal(&target, login.as_deref(), forced) {
            Some(error) => failures.add(target.title(), error)?,
            None => targets.push(target),
        }
    }
    if targets.is_empty() && failures.all().is_empty() {
        ui.status("No bootstrap tokens found.");
        return Ok(ExitCode::Done);
    }
    if !targets.is_empty() {
        announce(&targets, &cluster, ui);
        if revoke.dry_run == DryRun::None && !ui.confirm("", revoke.yes).await? {
            ui.status("Nothing was revoked.");
            return Ok(ExitCode::Failed);
        }
    }
    let revocation = Revocation {
        flags: &revoke,
        cluster: &cluster,
        servers,
        others: OnceCell::new(),
        ui,
    };
    let revocations: Vec<_> = targets.iter().map(|target| revocation.revoke(target)).collect();
    let mut results = stream::iter(revocations).buffered(PARALLEL).zip(stream::iter(&targets));
    let mut ended = Ok(());
    // Also after an interrupt: each says what became of its token.
    while let Some((result, target)) = results.next().await {
        match result {
            Ok(line) => ui.out(line),
            Err(error) => {
                if let Err(error) = failures.add(target.title(), error)
                    && let Err(before) = std::mem::replace(&mut ended, Err(error))
                {
                    ui.error(&before);
                }
            }
        }
    }
    ended?;
    failures.end("revoked")?;
    Ok(ExitCode::Done)
}

/// The tokens to revoke. An id among others that does not exist is a failure of its own.
async fn targets<'a>(
    revoke: &Revoke,
    ids: BTreeSet<TokenId>,
    cluster: &ClusterConnection,
    ui: &'a Ui,
) -> Result<(Vec<TokenSecret>, Failures<'a>), Error> {
    let failures = |count| Failures::of(ui, "bootstrap tokens", count);
    if revoke.ids.is_empty() {
        let mut found = tokens::list(cluster.client(), revoke.selector.as_deref()).await?;
        let now = cluster.server.clock.now();
        found.retain(|secret| !revoke.expired || secret.expiration.is_expired(now));
        let failures = failures(found.len());
        return Ok((found, failures));
    }
    let (mut targets, mut failures) = (Vec::new(), failures(ids.len()));
    for id in ids {
        let found = cluster.require(&id).await;
        targets.extend(failures.found(id.as_str(), found)?);
    }
    Ok((targets, failures))
}

/// Why a token must not be revoked.
fn refusal(target: &TokenSecret, login: Option<&str>, forced: bool) -> Option<Error> {
    let id = target.title();
    if login.and_then(|user| user.strip_prefix(USER_PREFIX)) == Some(id) {
        let error = Error::failed(format!("this command logs in with token {id}, which would be revoked"));
        return Some(error.hint("use a kubeconfig with another login"));
    }
    let owner = target.owner.as_ref().filter(|_| !forced)?;
    let error = Error::failed(format!("token {id} is managed by {owner}, which may create it again"));
    Some(error.hint("delete it there, or override this check with --force=owner"))
}

/// Prints the tokens to revoke, and the consequences.
fn announce(targets: &[TokenSecret], cluster: &ClusterConnection, ui: &Ui) {
    let now = cluster.server.clock.now();
    let count = targets.len();
    let plural = if count == 1 { "" } else { "s" };
    ui.status(format!("To be revoked: {count} bootstrap token{plural}"));
    for target in targets {
        let (id, ttl) = (target.title(), row::ttl(target.expiration, now));
        let line = format!("  {id}   {ttl}   {}", target.description);
        ui.status(line.trim_end());
    }
    ui.status(CONSEQUENCES);
    if targets.iter().any(TokenSecret::owns_uploaded_certificates) {
        ui.warn(
            "this also deletes Secret kube-system/kubeadm-certs: control-plane nodes can no longer join with a certificate key",
        );
    }
}

/// The inputs of all revocations of a command.
struct Revocation<'a> {
    flags: &'a Revoke,
    cluster: &'a ClusterConnection,
    servers: Servers,
    /// Whether there may be API servers that are not probed.
    others: OnceCell<bool>,
    ui: &'a Ui,
}

impl Revocation<'_> {
    /// Revokes one token, and returns the line to print.
    async fn revoke(&self, target: &TokenSecret) -> Result<String, Error> {
        let (id, ui, dry_run) = (target.title(), self.ui, self.flags.dry_run);
        let interrupted = |message: &str| Error::new(Kind::Interrupted, format!("interrupted: token {id} {message}"));
        if ui.interrupt().is_cancelled() {
            return Err(interrupted("was not revoked"));
        }
        let _hold = ui.hold();
        // Before the token, so that the same command finds both again after a kill.
        if let (DryRun::None, Some(id)) = (dry_run, &target.id) {
            let lease = target::lease(id);
            lease.delete_unused::<BootstrapToken>(&self.cluster.server).await;
        }
        if dry_run != DryRun::Client {
            let write = cluster::write(dry_run == DryRun::Server);
            let deleted = tokens::delete(self.cluster.client(), target, &write).await;
            deleted.map_err(|error| {
                let replaced = error.is_conflict();
                let error = Error::from(error);
                if replaced {
                    error.hint("another token with this id has been created meanwhile, and was left alone")
                } else {
                    error
                }
            })?;
        }
        if dry_run != DryRun::None {
            return Ok(format!("token {id} revoked{}", dry_run.suffix()));
        }
        let Some(token) = &target.token else {
            ui.warn(format!(
                "token {id} is deleted, but was not checked to be rejected: its Secret contained no valid token"
            ));
            return Ok(format!("token {id} deleted"));
        };
        let rejected = async {
            let others = self
                .others
                .get_or_init(|| self.servers.may_be_more(self.cluster.client()));
            probe::until_rejected(&self.servers, token, *others.await, self.flags.timeout).await
        };
        let result = tokio::select! {
            result = rejected => result?,
            () = ui.interrupt().cancelled() => {
                return Err(interrupted("is deleted, but may be accepted for up to 10 seconds"));
            }
        };
        self.line(id, result)
    }

    fn line(&self, id: &str, result: RevocationResult) -> Result<String, Error> {
        let timeout = duration::format(self.flags.timeout);
        let timed_out = |message| Error::new(Kind::TimedOut, message);
        Err(match result {
            RevocationResult::Rejected => return Ok(format!("token {id} revoked")),
            RevocationResult::MayBeCached => timed_out(format!(
                "token {id} is deleted and rejected, but after {timeout} another API server may still have it in its cache"
            ))
            .hint("API servers cache accepted tokens for 10 seconds: pass a longer --timeout")
            .hint("if there are several API servers, pass --api-server URL for each"),
            RevocationResult::NotRejected(ServerResult {
                server,
                result: ProbeResult::Unknown(reason),
            }) => Error::failed(format!(
                "token {id} is deleted, but it is unknown whether {server} rejects it: {reason}"
            )),
            RevocationResult::NotRejected(ServerResult { server, .. }) => timed_out(format!(
                "token {id} is deleted, but after {timeout} {server} still accepts it"
            ))
            .hint(format!(
                "it may have been created again: `{}` revokes it if it exists",
                self.cluster.command("revoke", id)
            )),
        })
    }
}
