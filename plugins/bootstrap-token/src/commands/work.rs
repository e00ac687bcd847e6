//! What one rotation of a bootstrap token brings to the verbs `rotate` and `rollback`.

use std::time::Duration;

use bootstrap::{Token, TokenId, tokens};
use cli::app::{Context, GlobalFlags};
use cli::rotation::again::Again;
use cli::rotation::job::Kept;
use cli::rotation::outcome::{Asked, RotationResult};
use cli::rotation::plan::Line;
use cli::rotation::results::{Results, RunFlags};
use cli::rotation::subject::LeaseName;
use cli::rotation::{Job, Subject};
use client::connection::Server;
use client::duration;
use client::error::Error;
use client::secret::Fingerprint;
use engine::lock::Record;
use engine::plan::{Plan, Planned};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, Preconditions};

use crate::controller::{Check, Options, TokenActor};
use crate::delivery::Target;
use crate::lifetime::{DEFAULT, LONG};
use crate::report::product::{self, PLUGIN};
use crate::rotation::BootstrapToken;
use crate::rotation::view::View;
use crate::rotation::write::{Which, Write};
use crate::servers::{ServerFlags, Servers};
use crate::side::{self, Side};

/// The flags that `rotate` and `rollback` share.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Common {
    /// What every plugin has.
    #[command(flatten)]
    pub run: RunFlags,

    /// How long both tokens work, so that whoever has read the one that goes can still use it; as long as kubeadm join
    /// takes at most, five minutes to find the cluster and five to get a certificate
    #[arg(long, value_name = "DURATION", default_value = OVERLAP, value_parser = duration::parse)]
    pub overlap: Duration,

    /// How long the new token may take to be proven, before the old one is restored
    #[arg(long, value_name = "DURATION", default_value = TIMEOUT, value_parser = duration::parse)]
    pub timeout: Duration,

    /// Whom to ask.
    #[command(flatten)]
    pub servers: ServerFlags,
}

const OVERLAP: &str = "10m";
const TIMEOUT: &str = "5m";

impl Common {
    /// The command that resumes a rotation, with the options of this one. The Lease tells none of them.
    fn again(&self, id: &TokenId, options: &Options, global: &GlobalFlags) -> Again {
        let given = |value: Duration, default: &str| {
            let is_default = duration::parse(default).is_ok_and(|default| default == value);
            (!is_default).then(|| duration::format(value))
        };
        let again = way(Again::new(PLUGIN, id.as_str(), global), global)
            .with("--overlap", given(self.overlap, OVERLAP).as_deref())
            .with("--timeout", given(self.timeout, TIMEOUT).as_deref());
        let named = self.servers.named.iter();
        let again = named.fold(again, |again, url| {
            again.with("--api-server", Some(url.as_str().trim_end_matches('/')))
        });
        let of_inputs = [Check::Target, Check::Cluster].into_iter();
        let forced = of_inputs.filter(|check| options.forced.contains(check));
        let again = forced.fold(again, |again, check| again.with("--force", Some(check.name())));
        let target = options.deliver.as_ref().map(Target::to_string);
        let again = again.with_to_rotate("--deliver", target.as_deref());
        match options.ttl {
            None => again.switched_on_to_rotate("--never-expires"),
            Some(DEFAULT) => again,
            Some(ttl) => {
                let again = again.with_to_rotate("--ttl", Some(&duration::format(ttl)));
                if ttl > LONG {
                    again.switched_on_to_rotate("--allow-long")
                } else {
                    again
                }
            }
        }
    }
}

/// What else leads to the same API server as the same user. A `--token` is not repeated.
fn way(again: Again, global: &GlobalFlags) -> Again {
    let flags = &global.connection;
    let again = again
        .with("--cluster", flags.cluster.as_deref())
        .with("--user", flags.user.as_deref())
        .with("--server", flags.server.as_deref())
        .with("--tls-server-name", flags.tls_server_name.as_deref())
        .with("--certificate-authority", flags.certificate_authority.as_deref())
        .with("--client-certificate", flags.client_certificate.as_deref())
        .with("--client-key", flags.client_key.as_deref())
        .with("--as", flags.impersonate.as_deref())
        .with("--as-uid", flags.impersonate_uid.as_deref());
    let groups = flags.impersonate_groups.iter().map(|group| ("--as-group", group));
    let extras = flags.impersonate_extra.iter().map(|extra| ("--as-user-extra", extra));
    groups
        .chain(extras)
        .fold(again, |again, (flag, value)| again.with(flag, Some(value)))
}

/// One command about one token.
pub(super) struct Command<'a> {
    pub(super) asked: Asked,
    pub(super) common: &'a Common,
    pub(super) options: Options,
    pub(super) global: &'a GlobalFlags,
    pub(super) context: &'a Context,
}

impl Command<'_> {
    /// Does it, and tells how it ended. The name of the outcome comes with it.
    pub(super) async fn on(self, id: TokenId) -> Result<(&'static str, Result<(), Error>), Error> {
        let (ui, run) = (&self.context.ui, &self.common.run);
        let results = Results::new(ui, run, true)?;
        let side = Side::open(self.global, self.context)?;
        // Every deadline is one by the server's clock.
        side.version().await?;
        let subject = product::subject(&id, self.common.again(&id, &self.options, self.global));
        let servers = Servers::new(&side.connection, &self.common.servers);
        let force = |check| self.options.forced.contains(&check);
        let (force_lock, force_journal) = (force(Check::Lock), force(Check::Journal));
        let work = Work {
            side: &side,
            patience: self.common.timeout.max(self.common.overlap),
            actor: TokenActor::new(&side, servers, id, self.options),
            subject,
        };
        let job = Job {
            ui,
            work: &work,
            asked: self.asked,
            yes: run.yes,
            dry_run: run.dry_run,
            plan_is_data: results.plan_is_data(),
            among: None,
            force_lock,
            force_journal,
        };
        let mut result = RotationResult::of(&work.subject);
        let ended = job.run(&mut result).await;
        results.tell(&work.subject, &result, ended.is_ok())?;
        let outcome = result.outcome;
        results.print(&[result])?;
        Ok((outcome, ended))
    }
}

/// One token to work on.
struct Work<'a> {
    side: &'a Side,
    actor: TokenActor<'a>,
    patience: Duration,
    subject: Subject,
}

impl<'a> cli::rotation::Work for Work<'a> {
    type Actor = TokenActor<'a>;

    fn actor(&self) -> &TokenActor<'a> {
        &self.actor
    }

    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn server(&self) -> &Server {
        &self.side.server
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn resumable_by(&self) -> String {
        let file = self.actor.target().and_then(Target::file);
        let only = file.map(|path| format!(", on the host of {}", path.display()));
        format!(
            "anybody with the rights in kube-system that the rotation was begun with{}",
            only.unwrap_or_default()
        )
    }

    /// Where several API servers are asked, what each of them said.
    fn explain(&self, error: Error) -> Error {
        self.actor.dissent().into_iter().fold(error, Error::hint)
    }

    async fn check(&self, plan: &Plan<BootstrapToken>, lines: &mut [Line]) {
        for (step, line) in plan.steps.iter().zip(lines) {
            if let Planned::Write { write, .. } = step {
                line.checked = Some(match self.check_one(write).await {
                    None => "not checked: it needs the steps before it".to_owned(),
                    Some(Ok(())) => "server dry run".to_owned(),
                    Some(Err(error)) => format!("refused by the server: {}", error.message),
                });
            }
        }
    }

    fn unproven(&self) -> Vec<String> {
        let unproven = |token| {
            format!(
                "Not proven by a call: that the API server refuses {token}. Nobody knows its value any more; its Secret has \
                 been gone for longer than a success is remembered."
            )
        };
        self.actor.unproven().into_iter().map(unproven).collect()
    }

    fn kept(&self) -> Option<Kept> {
        self.actor.kept().then(|| {
            let new = self.actor.new_token();
            let called = &self.subject.called;
            let stays = (new.as_ref()).map_or_else(String::new, |new| format!(": {} stays in its place", new.id));
            Kept {
                now: new.as_ref().map(Token::fingerprint),
                message: format!(
                    "{called} has ended before it could be put back, and there is no way back to it{stays}"
                ),
            }
        })
    }

    async fn done(&self, _: &View, plan: Option<&Plan<BootstrapToken>>) -> (Option<Fingerprint>, String) {
        let Some(new) = self.actor.new_token() else {
            return (None, "The new token is gone already.".to_owned());
        };
        if let Err(error) = self.forget().await {
            tracing::debug!(%error, "the Lease stays");
        }
        let delivered = plan.and_then(|plan| plan.notes.place.as_ref());
        let left = self.actor.left();
        let last = match delivered.filter(|_| left.is_none()) {
            Some(place) if self.actor.is_delivered() => {
                format!("The new token is {}, delivered to {}.", new.id, place.at)
            }
            Some(place) => format!(
                "The new token is {}. Another writer has changed {} since: it does not hold the new token.",
                new.id, place.at
            ),
            None => format!(
                "The new token is {}; `kubectl bootstrap-token kubeconfig {}` prints what a kubelet needs to join with it.",
                new.id, new.id
            ),
        };
        let unproven: String = self.unproven().into_iter().map(|sentence| sentence + " ").collect();
        let left = left.map_or_else(String::new, |place| {
            format!(
                "{place} was left as it is: whoever finds {} there is refused. ",
                self.actor.id()
            )
        });
        (Some(new.fingerprint()), unproven + &left + &last)
    }
}

impl Work<'_> {
    /// The Lease of a token that is gone would stay for ever, and there is one for each. Whoever may not delete it leaves it.
    async fn forget(&self) -> Result<(), kube::Error> {
        let LeaseName { namespace, name, .. } = &self.subject.lease;
        let leases: Api<Lease> = Api::namespaced(self.side.client().clone(), namespace);
        let Some(lease) = leases.get_opt(name).await? else {
            return Ok(());
        };
        let record = Record::of(&lease);
        if record.holder.is_some() || record.journal.is_some() {
            return Ok(());
        }
        let preconditions = Preconditions {
            uid: lease.metadata.uid,
            resource_version: lease.metadata.resource_version,
        };
        leases
            .delete(name, &DeleteParams::default().preconditions(preconditions))
            .await
            .map(drop)
    }

    /// `None`: it cannot stand alone. A value is drawn for the check, and forgotten.
    async fn check_one(&self, write: &Write) -> Option<Result<(), Error>> {
        let (client, by) = (self.side.client(), side::write(true));
        match write {
            Write::Create { .. } => {
                let checked = async {
                    let new = self.actor.proposal(Token::generate()?)?;
                    tokens::create(client, &new, &by).await?;
                    Ok(())
                };
                Some(checked.await)
            }
            Write::Deliver { .. } => self.actor.check_target().await,
            Write::Delete { which: Which::Old, .. } => {
                let checked = async {
                    let old = tokens::require(client, self.actor.id()).await?;
                    Ok(tokens::delete_as_seen(client, &old, &by).await?)
                };
                Some(checked.await)
            }
            _ => None,
        }
    }
}
