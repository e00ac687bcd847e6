//! `list --probe`: asks each agent for its token, and Rancher which tokens it accepts.

use std::time::Duration;

use cli::app::GlobalFlags;
use cli::rotation::Commands;
use cli::ui::Ui;
use client::connection::Server;
use client::error::Error;
use client::secret::Secret;
use futures::stream::{self, StreamExt as _};
use rancher::TokenStorage;
use rancher::agent::{self, StvAggregation};
use rancher::cluster::ClusterKind;
use rancher::probe::{Probe, ProbeResult};
use rancher::reach::RancherUrl;

use crate::connections::{DOWNSTREAM, Management};
use crate::listing::{Group, ListedCluster, NoPermission};
use crate::report::inputs::{self, NOT_CONNECTED, Unavailable};
use crate::report::rotation::ClusterRotation;
use crate::report::row::{Accepted, Row};
use crate::report::token_state::{AgentAddress, AgentToken};
use crate::rotation::observed::Address;

/// Rancher takes half a minute to report a disconnected agent, which is too long for a list.
const TIMEOUT: Duration = Duration::from_secs(8);
/// How many tokens are checked in parallel.
const PARALLEL: usize = 8;
/// No manifest of Rancher sets `minReadySeconds`. From this many seconds on a rollout is held.
const HELD: i32 = 60;

pub(super) struct Prober<'a> {
    management: &'a Management,
    ui: &'a Ui,
    global: &'a GlobalFlags,
    probe: Probe,
    rancher: Option<RancherUrl>,
    /// Where Rancher's next redeploy sends an agent.
    pushes: Option<Address>,
}

/// What the agent of a cluster reports.
pub(super) struct AgentReport {
    pub(super) token: Option<AgentToken>,
    pub(super) address: Option<AgentAddress>,
    held: bool,
}

impl<'a> Prober<'a> {
    pub(super) async fn open(management: &'a Management, ui: &'a Ui, global: &'a GlobalFlags) -> Result<Self, Error> {
        let settings = management.settings().await?;
        let rancher = management.rancher().await?;
        if rancher.is_none() {
            ui.warn(
                "--context is not a context of Rancher, so agents cannot be asked: USED BY is based on the management cluster only",
            );
        }
        let probe = management.probe(rancher.as_ref(), &settings)?;
        Ok(Self {
            management,
            ui,
            global,
            probe,
            rancher,
            pushes: inputs::pushed_address(&settings),
        })
    }

    /// Which token the agent uses and where it connects to, by what it has written. Warns of a held rollout without a running
    /// rotation.
    pub(super) async fn agent_report(
        &self,
        group: &Group,
        cluster: Option<&ListedCluster>,
        lease: Result<Option<&ClusterRotation>, NoPermission>,
    ) -> Option<AgentReport> {
        let has_agent = cluster.is_some_and(|cluster| cluster.kind != ClusterKind::Local);
        let id = group.namespace.parse().ok().filter(|_| has_agent)?;
        let server = self.management.through_rancher(self.rancher.as_ref()?, &id).ok()?;
        let Ok(report) = tokio::time::timeout(TIMEOUT, self.read_agent(&server)).await else {
            self.ui.warn(format!(
                "cluster {id}: no response through its agent within {}s",
                TIMEOUT.as_secs()
            ));
            return None;
        };
        match report {
            Ok(report) => {
                if report.held
                    && let Some(warning) = held_rollout(
                        &Commands::new::<crate::cli::Crt>(&*group.namespace, self.global),
                        &group.namespace,
                        &lease,
                    )
                {
                    self.ui.warn(warning);
                }
                Some(report)
            }
            Err(error) => {
                let why = if error.is_agent_disconnected() {
                    NOT_CONNECTED.to_owned()
                } else {
                    Unavailable::from(error.on(DOWNSTREAM)).0
                };
                self.ui.warn(format!("cluster {id}: {why}"));
                None
            }
        }
    }

    async fn read_agent(&self, server: &Server) -> rancher::Result<AgentReport> {
        let (record, deployment) = futures::future::try_join(
            agent::stv_aggregation(&server.client),
            agent::deployment(&server.client),
        )
        .await?;
        let address_of = |record: &StvAggregation| {
            let now = Address::of(record.server_url.as_deref(), record.ca_checksum.as_deref());
            Some(AgentAddress {
                url: record.server_url.clone()?,
                changes_at_next_redeploy: self.pushes.is_some_and(|next| next != now),
            })
        };
        Ok(AgentReport {
            token: record
                .as_ref()
                .and_then(|record| record.token)
                .map(AgentToken::Reported),
            address: record.as_ref().and_then(address_of),
            held: deployment.is_some_and(|deployment| deployment.rollout.min_ready_seconds >= HELD),
        })
    }

    /// Adds to each row whether Rancher accepts its value.
    pub(super) async fn add_acceptance(&self, group: &Group, rows: Vec<Row>) -> Vec<Row> {
        let of_tokens = group.tokens.iter().map(|token| token.current().cloned());
        let of_orphans = group.orphans.iter().map(|secret| secret.current.clone());
        // Owned values: futures that borrow from a closure's argument are not `Send`.
        let mut values: Vec<Option<Secret>> = of_tokens.chain(of_orphans).collect();
        // The value of an agent's token that no object has is not known.
        values.resize(rows.len(), None);
        let storage = storage(group);
        let rows = stream::iter(values.into_iter().zip(rows))
            .map(|(value, row)| async move { row.with_acceptance(self.accepted(storage, value.as_ref()).await) });
        rows.buffered(PARALLEL).collect().await
    }

    async fn accepted(&self, storage: TokenStorage, value: Option<&Secret>) -> Accepted {
        let Some(value) = value else { return Accepted::Unknown };
        match self.probe.check(storage, value).await {
            ProbeResult::Accepted { .. } => Accepted::Yes,
            ProbeResult::Rejected => Accepted::No,
            ProbeResult::Unknown(_) => Accepted::Unknown,
        }
    }
}

/// Storage `status` unless there is a Secret: then a rejected token must not be sent to every endpoint.
fn storage(group: &Group) -> TokenStorage {
    let in_secret = !group.orphans.is_empty() || group.tokens.iter().any(|token| token.secret_name.is_some());
    if in_secret {
        TokenStorage::Secret
    } else {
        TokenStorage::Status
    }
}

/// The warning about a held rollout, unless a running rotation will release it.
fn held_rollout(
    commands: &Commands,
    cluster: &str,
    lease: &Result<Option<&ClusterRotation>, NoPermission>,
) -> Option<String> {
    let held = format!("cluster {cluster}: the rollout of its agent is held");
    match lease {
        Err(NoPermission) => Some(format!(
            "{held}; whether a rotation is running is unknown (no permission to list Leases)"
        )),
        Ok(Some(rotation)) if !rotation.is_unattended() => None,
        Ok(Some(rotation)) if rotation.in_progress() => Some(format!(
            "{held}, and its rotation was interrupted; `{}` resumes it",
            commands.rotate()
        )),
        Ok(_) => Some(format!(
            "{held}, and no rotation is in progress; see `{}`",
            commands.status()
        )),
    }
}
