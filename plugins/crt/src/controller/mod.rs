//! The half of the rotation that touches the world: [`CrtActor`] reads both sides and carries out single writes.
//!
//! It decides nothing. What it reads becomes a [`View`] of names and fingerprints; what is decided on comes back as a
//! [`Write`], which it sends with the versions of the objects that it read last.

mod act;
mod check;
mod snapshot;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use check::Check;
use client::clock::ServerClock;
use client::cluster_identity::{self, CaComparison, SYSTEM_NAMESPACE};
use client::error::Error;
use client::ownership;
use client::secret::{Fingerprint, Secret};
use engine::lock::Fence;
use engine::phase::{Goal, Phase};
use engine::protocol::{Actor, Draw, Run, Trouble};
use futures::future::{join_all, try_join, try_join_all};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rancher::agent::{self, Deployment, Pod, StvAggregation};
use rancher::cluster::{self, Cluster, ClusterId};
use rancher::credential_name::Formula;
use rancher::era::Era;
use rancher::probe::Verdict;
use rancher::settings;
use rancher::token::{self, Tokens, generate};
pub(crate) use snapshot::{BRIDGE_LABEL, TRIGGERED};
use snapshot::{Names, Snapshot};
pub use survey::not_rotated;
use tokio::sync::OnceCell;

use crate::report::evidence;
use crate::rotation::view::{Address, Downstream as Which, View};
use crate::rotation::write::Write;
use crate::rotation::{Crt, Timer, was_placed};
use crate::sides::{DOWNSTREAM, Downstream, MANAGEMENT, Path, Sides};

/// Who writes, as API servers record it.
pub const FIELD_MANAGER: &str = "kubectl-crt";
/// How often in a row a new token must be found accepted: each of Rancher's replicas has an index of its own.
const LOOKS: u32 = 2;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only the token of the agent gets a new value.
    pub only_agent: bool,
    /// The checks that do not count.
    pub forced: BTreeSet<Check>,
    /// How long the new token may take to be proven.
    pub timeout: Duration,
    /// How long a redeploy may be under way that was rendered before.
    pub settle: Duration,
}

/// The actor for one cluster.
pub struct CrtActor<'a> {
    sides: &'a Sides,
    downstream: &'a Downstream,
    options: Options,
    /// How long Rancher lets a token live: asked once.
    ttl: OnceCell<SignedDuration>,
    state: Mutex<State>,
}

/// What one look leaves for the next write, and for the next look.
#[derive(Default)]
struct State {
    snapshot: Option<Snapshot>,
    names: Names,
    /// Every value that this process has drawn or read. A value that no object holds any more can still be shown to be
    /// refused.
    known: BTreeMap<Fingerprint, Secret>,
    /// Values that are to be refused and that Rancher could not be asked about, since nobody knows them any more.
    unproven: BTreeSet<Fingerprint>,
    /// The answer about a value holds for as long as the tokens are the same.
    answered: Option<(Vec<String>, BTreeMap<Fingerprint, Verdict>)>,
    has_feature: Option<bool>,
    /// Whether the downstream side is the right cluster. What was shown once stays so: a connection leads to one place.
    downstream: Option<Which>,
    /// The cluster that Rancher says each value belongs to.
    belongs: BTreeMap<Fingerprint, ClusterId>,
    /// The version of the Cluster that was seen last, and since when.
    cluster_version: Option<(String, Timestamp)>,
    may: bool,
    /// How often this process has made a new pod of the agent.
    restarts: u32,
}

/// How long the first new pod of the agent may take to connect before there is another one. Each has twice the time of the one
/// before …
const RECONNECT: Duration = Duration::from_secs(30);
/// … up to eight minutes.
const DOUBLINGS: u32 = 4;

/// What is read of the downstream side.
type Below = (Deployment, Vec<Pod>, Option<StvAggregation>);

impl<'a> CrtActor<'a> {
    /// For a cluster whose sides are open.
    ///
    /// # Errors
    /// There is no way to the downstream side.
    pub fn new(sides: &'a Sides, options: Options) -> Result<Self, Error> {
        let downstream = sides.downstream()?;
        Ok(Self {
            sides,
            downstream,
            options,
            ttl: OnceCell::new(),
            state: Mutex::default(),
        })
    }

    /// The values that should be refused by now and could not be asked about: nobody knows them any more, since another
    /// process revoked them and ended before it had asked.
    pub fn unproven(&self) -> Vec<Fingerprint> {
        self.state().unproven.iter().copied().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The management side: the cluster, its tokens, and which era they belong to.
    async fn above(&self) -> Result<(Cluster, Tokens, bool), Error> {
        let client = &self.sides.management.client;
        let id = &self.sides.cluster.id;
        let feature = async {
            let known = self.state().has_feature;
            match known {
                Some(known) => Ok(known),
                None => match settings::feature(client, settings::TTL_ROTATION).await {
                    Err(error) if error.is_forbidden() => Ok(false),
                    other => other.map(|feature| feature.is_some()),
                },
            }
        };
        let read = futures::try_join!(cluster::get(client, id), token::list(client, id), feature);
        let (cluster, tokens, has_feature) = read.map_err(|error| error.on(MANAGEMENT))?;
        let cluster = cluster.ok_or_else(|| Error::failed(format!("cluster {id} is gone")))?;
        Ok((cluster, tokens, has_feature))
    }

    async fn below(&self) -> Result<Below, Error> {
        let client = &self.downstream.server.client;
        let read = futures::try_join!(
            agent::deployment(client),
            agent::pods(client),
            agent::stv_aggregation(client)
        );
        let (deployment, pods, stv) = read.map_err(|error| error.on(DOWNSTREAM))?;
        let deployment = deployment.ok_or_else(|| {
            Error::failed("the downstream cluster has no Deployment cattle-system/cattle-cluster-agent")
        })?;
        Ok((deployment, pods, stv))
    }

    async fn look(&self, run: Option<&Run<Crt>>) -> Result<View, Trouble> {
        let ((cluster, tokens, has_feature), (deployment, pods, stv)) = try_join(self.above(), self.below()).await?;
        let era = Era::of(has_feature, &tokens.tokens);
        let era = era.map_err(|mixed| trouble_of_mixed_era(run, &mixed))?;
        self.state().has_feature = Some(has_feature);
        let sides = &self.sides;
        let now = sides.management.clock.now();
        let (downstream, pushes) = futures::join!(self.which_cluster(&cluster), self.pushes(era));
        let cluster_changed = self.cluster_changed(&cluster, now);
        let mut snapshot = Snapshot {
            downstream: downstream?,
            pushes: pushes?,
            may_move: self.options.forced.contains(&Check::Address),
            writer: String::new(),
            cluster_changed,
            era,
            cluster,
            tokens,
            deployment,
            pods,
            credentials: Vec::new(),
            stv,
            verdicts: BTreeMap::new(),
            answers: None,
            now,
            downstream_now: self.downstream.server.clock.now(),
        };
        let names = self.read_credentials(&mut snapshot, run).await?;
        snapshot.answers = self.fresh_call(&snapshot, run).await;
        snapshot.writer = self.writer(&snapshot, &names, run).await;
        let run_id = run.map(|run| run.id.to_string());
        let mut view = snapshot.view(&names, run.map(|run| &run.notes), run_id.as_deref());
        self.ask_rancher(&mut snapshot, &mut view, run).await;
        if run.is_none() {
            view.only_agent = self.options.only_agent;
            view.obstacles = survey::obstacles(sides, &snapshot, &view, &self.options.forced);
            self.check_rights(&snapshot).await.map_err(Trouble::Fatal)?;
            if survey::kind(&snapshot).is_none() && !self.options.forced.contains(&Check::Owner) {
                let owned = survey::owned(sides, self.downstream, &snapshot)
                    .await
                    .map_err(Trouble::Fatal)?;
                view.obstacles.extend(owned);
            }
        }
        let mut state = self.state();
        state.names = names;
        state.snapshot = Some(snapshot);
        Ok(view)
    }

    /// Whether the downstream side is the cluster that the tokens belong to. Through Rancher it is by construction; a context of
    /// the user's is compared by the uid of namespace kube-system, or, without a tunnel, by the CA that Rancher has noted.
    async fn which_cluster(&self, cluster: &Cluster) -> Result<Which, Trouble> {
        if self.downstream.path == Path::Derived {
            return Ok(Which::Proven);
        }
        let before = self.state().downstream;
        if let Some(known @ (Which::Proven | Which::Another)) = before {
            return Ok(known);
        }
        let direct = &self.downstream.server.client;
        let here = cluster_identity::uid(direct)
            .await
            .map_err(|error| error.on(DOWNSTREAM))?;
        let proxied = self.downstream.proxied.as_ref();
        let there = match proxied {
            Some(server) => cluster_identity::uid(&server.client).await.ok(),
            None => None,
        };
        let which = match there {
            Some(there) if there == here => Which::Proven,
            Some(_) => Which::Another,
            None => {
                let ca = cluster_identity::root_ca(direct, SYSTEM_NAMESPACE)
                    .await
                    .map_err(|error| error.on(DOWNSTREAM))?;
                let noted = cluster.ca_certificate.as_deref();
                match ca.zip(noted).map(|(ca, noted)| cluster_identity::same_ca(&ca, noted)) {
                    Some(CaComparison::Same) => Which::Proven,
                    _ if self.options.forced.contains(&Check::Context) => Which::Proven,
                    _ => Which::Unproven,
                }
            }
        };
        self.state().downstream = Some(which);
        Ok(which)
    }

    /// Where Rancher's next push would send the agent. In storage `status` this program has it push nothing.
    async fn pushes(&self, era: Era) -> Result<Option<Address>, Error> {
        if era == Era::Plain {
            return Ok(evidence::pushed_address(&self.sides.settings));
        }
        match settings::read_address(&self.sides.management.client).await {
            Ok(settings) => Ok(evidence::pushed_address(&settings)),
            Err(error) if error.is_forbidden() => Ok(None),
            Err(error) => Err(error.on(MANAGEMENT)),
        }
    }

    fn cluster_changed(&self, cluster: &Cluster, now: Timestamp) -> Timestamp {
        let version = &cluster.object.resource_version;
        let mut state = self.state();
        match &state.cluster_version {
            Some((known, since)) if known == version => *since,
            _ => {
                state.cluster_version = Some((version.clone(), now));
                now
            }
        }
    }

    /// Who wrote the Deployment last, where it is not as this run has left it.
    async fn writer(&self, snapshot: &Snapshot, names: &Names, run: Option<&Run<Crt>>) -> String {
        const SOMEONE: &str = "another writer";
        let named = snapshot.deployment.volume_secret.as_deref();
        let target = run.filter(|run| was_placed(run)).and_then(target);
        let is_there = target.is_none_or(|target| names.of(target) == named);
        if is_there {
            return SOMEONE.to_owned();
        }
        let metadata = agent::deployment_metadata(&self.downstream.server.client).await;
        let writer = metadata.ok().flatten().and_then(|metadata| {
            ownership::last_writer(&metadata, &["spec", "template", "spec", "volumes"], FIELD_MANAGER)
        });
        writer.map_or_else(|| SOMEONE.to_owned(), |writer| writer.to_string())
    }

    /// The Secrets that a Deployment of the agent names, or may be pointed at: single ones by name, since listing
    /// Secrets is a larger right.
    async fn read_credentials(&self, snapshot: &mut Snapshot, run: Option<&Run<Crt>>) -> Result<Names, Error> {
        let client = &self.downstream.server.client;
        if let Some(name) = &snapshot.deployment.volume_secret {
            let named = agent::credentials(client, name)
                .await
                .map_err(|error| error.on(DOWNSTREAM))?;
            snapshot.credentials.extend(named);
        }
        let names = self.names(snapshot, run);
        let known: BTreeSet<_> = snapshot
            .credentials
            .iter()
            .map(|found| found.object.name.clone())
            .collect();
        let mounted = snapshot.pods.iter().filter_map(|pod| pod.secret.as_deref());
        let wanted: BTreeSet<&str> = names
            .all()
            .into_iter()
            .chain(mounted)
            .filter(|name| !known.contains(*name))
            .collect();
        let read = try_join_all(wanted.into_iter().map(|name| agent::credentials(client, name))).await;
        let read = read.map_err(|error| error.on(DOWNSTREAM))?;
        snapshot.credentials.extend(read.into_iter().flatten());
        Ok(names)
    }

    fn names(&self, snapshot: &Snapshot, run: Option<&Run<Crt>>) -> Names {
        let values = snapshot.values();
        let notes = run.map(|run| &run.notes);
        let named = snapshot.named_credentials();
        let old = match (notes, named) {
            (Some(notes), _) => Some((notes.old, notes.old_secret.as_str())),
            (None, Some(named)) => named
                .token
                .as_ref()
                .map(|token| (token.fingerprint(), named.object.name.as_str())),
            (None, None) => None,
        };
        // Before a run only the Secret at hand is of interest; during one, those of its two tokens.
        let wanted = notes
            .into_iter()
            .flat_map(|notes| notes.new.into_iter().chain([notes.old]));
        let wanted: Vec<&Secret> = wanted.filter_map(|token| values.get(&token)).collect();
        let names = Names::new(
            wanted,
            Self::formula(snapshot),
            &self.server_url(snapshot),
            &snapshot.cluster.id,
            old,
        );
        names.by_name_only_if(|token| values.contains_key(&token))
    }

    fn formula(snapshot: &Snapshot) -> Formula {
        let named = snapshot.named_credentials();
        let recognised = named.and_then(rancher::agent::Credentials::formula);
        recognised.unwrap_or_else(|| Formula::of_manifest(!snapshot.deployment.variables.is_empty()))
    }

    /// Where the agent connects to: by its own Secret, else by Rancher's setting.
    fn server_url(&self, snapshot: &Snapshot) -> String {
        let own = snapshot.named_credentials().and_then(|named| named.url.clone());
        let last = || snapshot.stv.as_ref().and_then(|stv| stv.server_url.clone());
        own.or_else(last)
            .or_else(|| self.sides.settings.server_url.clone())
            .unwrap_or_default()
    }

    /// A call through Rancher's tunnel, made after the pods were read: once only pods of one Secret are left it can have
    /// been carried by none but theirs.
    async fn fresh_call(&self, snapshot: &Snapshot, run: Option<&Run<Crt>>) -> Option<bool> {
        let proving = run.is_some_and(|run| run.phase >= Phase::Place);
        let named = snapshot.deployment.volume_secret.as_ref();
        let alone = snapshot
            .pods
            .iter()
            .filter(|pod| !pod.finished)
            .all(|pod| pod.secret.as_ref() == named);
        let proxied = self.downstream.proxied.as_ref().filter(|_| proving && alone)?;
        Some(agent::version(&proxied.client).await.is_ok())
    }

    /// Asks Rancher about the values whose life or death matters now.
    async fn ask_rancher(&self, snapshot: &mut Snapshot, view: &mut View, run: Option<&Run<Crt>>) {
        let mut values = snapshot.values();
        let versions = versions(&snapshot.tokens);
        let mut known = self
            .state()
            .answered
            .take()
            .filter(|(of, _)| *of == versions)
            .map(|(_, known)| known);
        let (mut wanted, looks) = worth_asking(view, run);
        // Whose the old token is must be known in every direction.
        let old = run.map(|run| run.notes.old);
        wanted.extend(old.filter(|old| !self.state().belongs.contains_key(old) && view.is_in_use(*old)));
        {
            let mut state = self.state();
            state.known.append(&mut values);
            values.clone_from(&state.known);
            state.unproven = wanted
                .iter()
                .filter(|token| !values.contains_key(token))
                .copied()
                .collect();
        }
        // A value that is to be refused is asked about again and again, until it is; one that is accepted stays so.
        let settled = |token: &Fingerprint| {
            known
                .as_ref()
                .and_then(|known| known.get(token))
                .is_some_and(Verdict::is_live)
        };
        let fresh = wanted
            .iter()
            .filter(|token| view.is_held(**token) && settled(token))
            .copied()
            .collect::<BTreeSet<_>>();
        let asked: Vec<_> = wanted
            .difference(&fresh)
            .filter_map(|token| Some((*token, values.get(token)?)))
            .collect();
        let era = snapshot.era;
        let answers = join_all(asked.iter().map(|(_, value)| self.sides.probe.looks(era, value, looks))).await;
        let mut verdicts = known.take().unwrap_or_default();
        verdicts.extend(asked.iter().map(|(token, _)| *token).zip(answers));
        verdicts.retain(|token, _| wanted.contains(token));
        view.live = verdicts
            .iter()
            .filter(|(_, verdict)| !verdict.is_dead())
            .map(|(token, _)| *token)
            .collect();
        // What is to be accepted must be so without a doubt; what is to be refused counts as accepted while in doubt.
        let target = run.map_or(view.names, target);
        view.live
            .retain(|token| Some(*token) != target || verdicts.get(token).is_some_and(Verdict::is_live));
        let mut state = self.state();
        for (token, verdict) in &verdicts {
            if let Verdict::Live { cluster: Some(cluster) } = verdict {
                state.belongs.insert(*token, cluster.clone());
            }
        }
        let own = &self.sides.cluster.id;
        let foreign = state.belongs.iter().filter(|(_, cluster)| *cluster != own);
        view.foreign = foreign.map(|(token, _)| *token).collect();
        drop(state);
        snapshot.verdicts.clone_from(&verdicts);
        self.state().answered = Some((versions, verdicts));
    }

    async fn check_rights(&self, snapshot: &Snapshot) -> Result<(), Error> {
        if self.state().may || survey::kind(snapshot).is_some() {
            return Ok(());
        }
        survey::rights(self.sides, self.downstream, snapshot.era).await?;
        self.state().may = true;
        Ok(())
    }
}

/// Which values to ask Rancher about, and how often in a row.
fn worth_asking(view: &View, run: Option<&Run<Crt>>) -> (BTreeSet<Fingerprint>, u32) {
    let Some(run) = run else {
        return (view.names.into_iter().collect(), 1);
    };
    let mut wanted: BTreeSet<_> = target(run).into_iter().collect();
    let other = match run.goal {
        Goal::Forward => Some(run.notes.old),
        Goal::Back => run.notes.new,
    };
    let retired = run.phase >= Phase::Retire;
    wanted.extend(other.filter(|other| retired || !view.is_held(*other)));
    if retired && run.goal == Goal::Forward {
        wanted.extend(run.notes.others.values());
    }
    (wanted, LOOKS)
}

fn target(run: &Run<Crt>) -> Option<Fingerprint> {
    match run.goal {
        Goal::Forward => run.notes.new,
        Goal::Back => Some(run.notes.old),
    }
}

fn versions(tokens: &Tokens) -> Vec<String> {
    let of_tokens = tokens.tokens.iter().map(|token| token.object.resource_version.clone());
    let of_secrets = tokens
        .tokens
        .iter()
        .filter_map(|token| token.secret.as_ref())
        .chain(&tokens.orphans);
    of_tokens
        .chain(of_secrets.map(|secret| secret.object.resource_version.clone()))
        .collect()
}

impl Actor for CrtActor<'_> {
    type Protocol = Crt;

    async fn observe(&self, run: Option<&Run<Crt>>) -> Result<View, Trouble> {
        Box::pin(self.look(run)).await
    }

    fn draw(&self) -> Box<dyn Draw + '_> {
        Box::new(FromTheSystem {
            state: self.state(),
            clock: self.clock(),
        })
    }

    async fn act(&self, write: &Write, run: &Run<Crt>, fence: &Fence) -> Result<(), Trouble> {
        self.write(write, run, fence).await?;
        if matches!(write, Write::PointHeld { .. }) {
            self.state().restarts += 1;
        }
        Ok(())
    }

    fn lasts(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Proof => self.options.timeout,
            Timer::Settle => self.options.settle,
            // Where pods come up slowly, one that is made anew before it could connect never does.
            Timer::Reconnect => RECONNECT * 2_u32.pow(self.state().restarts.min(DOUBLINGS)),
        }
    }

    fn clock(&self) -> ServerClock {
        self.sides.management.clock.clone()
    }
}

/// Draws from the operating system, and keeps what it drew for the write.
struct FromTheSystem<'a> {
    state: MutexGuard<'a, State>,
    clock: ServerClock,
}

impl Draw for FromTheSystem<'_> {
    fn credential(&mut self) -> Fingerprint {
        // Without randomness nothing is kept, and the write finds no value to send.
        let Ok(value) = generate() else {
            return Fingerprint::of("");
        };
        let fingerprint = value.fingerprint();
        self.state.known.insert(fingerprint, value);
        fingerprint
    }

    fn mark(&mut self) -> String {
        let now: Timestamp = self.clock.now();
        now.to_string()
    }
}

/// A token that was just created has no Secret for a moment; before a run it is a half-done migration.
fn trouble_of_mixed_era(run: Option<&Run<Crt>>, mixed: &rancher::era::MixedEra) -> Trouble {
    let error = Error::failed(mixed.to_string());
    if run.is_some() {
        Trouble::NotYet(error)
    } else {
        Trouble::Fatal(error.hint("finish Rancher's migration of registration tokens first"))
    }
}
