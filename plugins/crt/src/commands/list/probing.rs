//! `list --probe`: the agents say which token they run with, and Rancher which ones it accepts.

use std::time::Duration;

use cli::ui::Ui;
use client::connection::Server;
use client::error::Error;
use client::secret::Secret;
use futures::stream::{self, StreamExt as _};
use rancher::agent::{self, StvAggregation};
use rancher::cluster::ClusterKind;
use rancher::token_storage::TokenStorage;
use rancher::probe::{Probe, ProbeResult};
use rancher::reach::RancherUrl;

use super::group::{Group, Known};
use super::source::NoRight;
use crate::report::evidence::{self, Gap, NO_TUNNEL};
use crate::report::judge::{Agent, AgentAddress};
use crate::report::product::Rotation;
use crate::report::row::{Accepted, Row};
use crate::rotation::observed::Address;
use crate::sides::{DOWNSTREAM, Management};

/// A cluster whose agent is gone takes Rancher half a minute to report; a list does not wait for that.
const PATIENCE: Duration = Duration::from_secs(8);
/// How many tokens are asked about at once.
const AT_ONCE: usize = 8;
/// No manifest of Rancher's sets `minReadySeconds`; one this long (seconds) is a roll-out that is held.
const HELD: i32 = 60;

pub(super) struct Prober<'a> {
    management: &'a Management,
    ui: &'a Ui,
    probe: Probe,
    rancher: Option<RancherUrl>,
    /// Where Rancher's next redeploy sends an agent.
    pushes: Option<Address>,
}

/// What the agent of a cluster says.
pub(super) struct SeenAgent {
    pub(super) agent: Option<Agent>,
    pub(super) address: Option<AgentAddress>,
    held: bool,
}

impl<'a> Prober<'a> {
    pub(super) async fn open(management: &'a Management, ui: &'a Ui) -> Result<Self, Error> {
        let settings = management.settings().await?;
        let rancher = management.rancher().await?;
        if rancher.is_none() {
            ui.warn(
                "the context is the management cluster's own, so agents cannot be asked: USED BY is what the management side tells",
            );
        }
        let probe = management.probe(rancher.as_ref(), &settings)?;
        Ok(Self {
            management,
            ui,
            probe,
            rancher,
            pushes: evidence::pushed_address(&settings),
        })
    }

    /// Which token the agent runs with and where it connects to, by its own record; warns of a held rollout without a running rotation.
    pub(super) async fn look_downstream(
        &self,
        group: &Group,
        cluster: Option<&Known>,
        lease: Result<Option<&Rotation>, NoRight>,
    ) -> Option<SeenAgent> {
        let has_agent = cluster.is_some_and(|cluster| cluster.kind != ClusterKind::Local);
        let id = group.namespace.parse().ok().filter(|_| has_agent)?;
        let server = self.management.through_rancher(self.rancher.as_ref()?, &id).ok()?;
        let Ok(seen) = tokio::time::timeout(PATIENCE, self.agent_of(&server)).await else {
            self.ui.warn(format!(
                "cluster {id}: its agent did not answer within {}s",
                PATIENCE.as_secs()
            ));
            return None;
        };
        match seen {
            Ok(seen) => {
                if seen.held
                    && let Some(warning) = held_by_nobody(&group.namespace, &lease)
                {
                    self.ui.warn(warning);
                }
                Some(seen)
            }
            Err(error) => {
                let why = if error.is_agent_disconnected() {
                    NO_TUNNEL.to_owned()
                } else {
                    Gap::from(error.on(DOWNSTREAM)).0
                };
                self.ui.warn(format!("cluster {id}: {why}"));
                None
            }
        }
    }

    async fn agent_of(&self, server: &Server) -> rancher::Result<SeenAgent> {
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
        Ok(SeenAgent {
            agent: record.as_ref().and_then(|record| record.token).map(Agent::Told),
            address: record.as_ref().and_then(address_of),
            held: deployment.is_some_and(|deployment| deployment.hold.min_ready_seconds >= HELD),
        })
    }

    /// Asks Rancher about each row's value.
    pub(super) async fn ask(&self, group: &Group, rows: Vec<Row>) -> Vec<Row> {
        let of_tokens = group.tokens.iter().map(|token| token.current().cloned());
        let of_orphans = group.orphans.iter().map(|secret| secret.current.clone());
        // Owned values: futures that borrow from a closure's argument are not `Send`.
        let values: Vec<Option<Secret>> = of_tokens.chain(of_orphans).collect();
        let era = era(group);
        let answers = stream::iter(values.into_iter().zip(rows))
            .map(|(value, row)| async move { row.asked(self.accepted(era, value.as_ref()).await) });
        answers.buffered(AT_ONCE).collect().await
    }

    async fn accepted(&self, era: TokenStorage, value: Option<&Secret>) -> Accepted {
        let Some(value) = value else { return Accepted::Unknown };
        match self.probe.look(era, value).await {
            ProbeResult::Accepted { .. } => Accepted::Yes,
            ProbeResult::Rejected => Accepted::No,
            ProbeResult::Unknown(_) => Accepted::Unknown,
        }
    }
}

/// Era P unless there is a Secret: in era P a dead token must not be shown at every door.
fn era(group: &Group) -> TokenStorage {
    let in_secret = !group.orphans.is_empty() || group.tokens.iter().any(|token| token.secret_name.is_some());
    if in_secret { TokenStorage::Secret } else { TokenStorage::Status }
}

/// A roll-out that is held should have a living run that ends it.
fn held_by_nobody(cluster: &str, lease: &Result<Option<&Rotation>, NoRight>) -> Option<String> {
    let held = format!("cluster {cluster}: the roll-out of its agent is held, and");
    match lease {
        Err(NoRight) => Some(format!(
            "{held} whether a living run attends to it cannot be seen without the right to list Leases"
        )),
        Ok(Some(rotation)) if !rotation.is_unattended() => None,
        Ok(Some(rotation)) if rotation.in_progress() => Some(format!(
            "{held} no living run attends to it; `kubectl crt rotate {cluster}` goes on with the rotation"
        )),
        Ok(_) => Some(format!(
            "{held} no living run attends to it; look at `kubectl crt status {cluster}`"
        )),
    }
}
