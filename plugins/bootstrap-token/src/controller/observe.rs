//! Reads everything that the stages depend on, and probes the API servers with the tokens.

use std::time::Duration;

use bootstrap::token::USER_PREFIX;
use bootstrap::{ProbeResult, Token, TokenId, TokenSecret, cluster_info, secret, tokens};
use client::access;
use client::cluster_identity;
use client::error::Error;
use engine::controller::Failure;
use engine::credential::Acceptance;
use tokio::time::Instant;

use super::abstraction::{self, DeliverySnapshot, Identity, Observation, Snapshot, Values};
use super::{Run, TokenController, of_file, preflight};
use crate::delivery::{DeliveryTarget, file};
use crate::rotation::blockers::{CLUSTER, TARGET};
use crate::rotation::observed::{Id, Observed};
use crate::rotation::record::Place;

/// How long a check of the login and the cluster counts.
const IDENTITY_FRESH: Duration = Duration::from_secs(10);

impl TokenController<'_> {
    pub(super) async fn observation(&self, run: Option<&Run>) -> Result<Observed, Failure> {
        let requested = self.options.deliver.as_ref().map(DeliveryTarget::place);
        let place = requested.or_else(|| run?.record.place.clone());
        let new_id = run.and_then(|run| run.record.new.as_ref());
        let new_id = new_id.and_then(|new| new.id.0.parse::<TokenId>().ok());
        let snapshot = self.read(new_id.as_ref(), place.as_ref()).await?;
        let identity = self.identity().await?;
        let (is_first, values) = {
            let mut state = self.state();
            state.new_id = new_id;
            state.memory.note(&snapshot, run);
            (
                state.snapshot.is_none(),
                abstraction::values(&snapshot, run, &state.memory),
            )
        };
        let another_cluster = identity.another_cluster(&snapshot, place.as_ref(), self.is_forced(CLUSTER));
        // No token must be sent to another cluster.
        let acceptances = if another_cluster.is_none() {
            self.acceptances(&values, &snapshot, run, is_first).await?
        } else {
            Default::default()
        };
        let now = self.cluster.server.clock.now();
        let mut state = self.state();
        let mut seen = Observation {
            id: &self.id,
            snapshot: &snapshot,
            run,
            memory: &state.memory,
            values: &values,
            acceptances,
            place,
            lost: self.is_forced(TARGET),
            login: identity.login,
            another_cluster,
            now,
        }
        .observed();
        match run {
            None => seen.blockers = preflight::blockers(&snapshot, &seen, &self.options, now),
            Some(run) => {
                state.unproven = abstraction::unproven(&values, &snapshot, run);
                state.abandoned.clone_from(&run.record.abandoned);
            }
        }
        state.disagreements = abstraction::disagreements(&seen, run);
        if let Some(template) = preflight::template(&snapshot, &seen, self.options.ttl, now) {
            state.template = Some(template);
        }
        state.snapshot = Some(snapshot);
        Ok(seen)
    }

    async fn read(&self, new: Option<&TokenId>, place: Option<&Place>) -> Result<Snapshot, Error> {
        let client = self.cluster.client();
        let new = async {
            match new {
                Some(id) => tokens::get(client, id).await,
                None => Ok(None),
            }
        };
        let info = async {
            match cluster_info::read(client).await {
                Err(error) if error.is_forbidden() => Ok(None),
                // A malformed ConfigMap has no signature that a node could verify.
                Err(bootstrap::Error::InvalidClusterInfo(_)) => Ok(None),
                other => other,
            }
        };
        let tokens = async { Ok(futures::try_join!(tokens::get(client, &self.id), new, info)?) };
        let ((old, new, info), delivery) = futures::try_join!(tokens, self.read_delivery(place))?;
        Ok(Snapshot {
            old,
            new,
            info,
            delivery,
        })
    }

    async fn read_delivery(&self, place: Option<&Place>) -> Result<DeliverySnapshot, Error> {
        let Some(place) = place else {
            return Ok(DeliverySnapshot::None);
        };
        let target = DeliveryTarget::of(place);
        Ok(
            match target.map_err(|error| Error::failed(error.to_string()).doing("read the journal"))? {
                None => DeliverySnapshot::OtherHost,
                Some(DeliveryTarget::Secret(key)) => match key.read(self.cluster.client()).await? {
                    Some(version) => DeliverySnapshot::Secret(key, Box::new(version)),
                    None => DeliverySnapshot::Missing(DeliveryTarget::Secret(key)),
                },
                Some(DeliveryTarget::File(path)) => match file::read(&path).map_err(|error| of_file(&path, &error))? {
                    Some(version) => DeliverySnapshot::File(path, version),
                    None => DeliverySnapshot::Missing(DeliveryTarget::File(path)),
                },
            },
        )
    }

    async fn identity(&self) -> Result<Identity, Error> {
        let known = self.state().identity.clone();
        if let Some((_, identity)) = known.filter(|(at, _)| at.elapsed() < IDENTITY_FRESH) {
            return Ok(identity);
        }
        let client = self.cluster.client();
        let user = access::current_user(client).await?;
        let published = cluster_identity::root_ca(client, secret::NAMESPACE)
            .await
            .ok()
            .flatten();
        let ours = self.cluster.connection.authority().map(str::to_owned);
        let identity = Identity {
            login: user.and_then(|user| Some(Id(user.strip_prefix(USER_PREFIX)?.to_owned()))),
            foreign_server: self.servers.of_another_cluster(client).await?,
            authorities: published.into_iter().chain(ours).collect(),
        };
        self.state().identity = Some((Instant::now(), identity.clone()));
        Ok(identity)
    }

    async fn acceptances(
        &self,
        values: &Values,
        snapshot: &Snapshot,
        run: Option<&Run>,
        is_first: bool,
    ) -> Result<[Acceptance; 2], Error> {
        let Some(run) = run else {
            let old = match &values.old {
                Some(token) => self.probe_before_start(token).await?,
                None => Acceptance::NotAsked,
            };
            return Ok([old, Acceptance::NotAsked]);
        };
        let [old, new] = abstraction::probes(values, snapshot, run, is_first);
        let (old, new) = futures::try_join!(
            self.probe(old, snapshot.old.as_ref(), run),
            self.probe(new, snapshot.new.as_ref(), run)
        )?;
        Ok([old, new])
    }

    /// Before a rotation, an unknown result is an error.
    async fn probe_before_start(&self, token: &Token) -> Result<Acceptance, Error> {
        let results = self.servers.probe(token).await?;
        let unknown = results.iter().find_map(|one| match &one.result {
            ProbeResult::Unknown(reason) => Some((&one.server, reason)),
            _ => None,
        });
        match unknown {
            Some((server, reason)) => Err(Error::failed(format!(
                "cannot tell whether {server} accepts bootstrap token {}: {reason}",
                token.id
            ))
            .hint("use the address of the API server itself: a proxy with its own login does not forward tokens")),
            None => Ok(abstraction::acceptance(&results)),
        }
    }

    async fn probe(&self, token: Option<&Token>, secret: Option<&TokenSecret>, run: &Run) -> Result<Acceptance, Error> {
        let Some(token) = token else {
            return Ok(Acceptance::NotAsked);
        };
        let value = token.fingerprint();
        let version = secret.map(|secret| secret.resource_version.as_str());
        let earlier = self.state().accepted.get(&value).cloned();
        if earlier.is_some_and(|(at, then)| abstraction::is_fresh(run, &then, version, at.elapsed())) {
            return Ok(Acceptance::Accepted);
        }
        let acceptance = abstraction::acceptance(&self.servers.probe(token).await?);
        let accepted = &mut self.state().accepted;
        match version.filter(|_| acceptance.is_accepted()) {
            Some(version) => drop(accepted.insert(value, (Instant::now(), version.to_owned()))),
            None => drop(accepted.remove(&value)),
        }
        Ok(acceptance)
    }
}
