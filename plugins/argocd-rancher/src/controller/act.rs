//! Single writes: each to one object, conditional on what was read last.

use argocd::{ClusterConfig, ClusterSecret, cluster_secret};
use client::error::Error;
use client::request;
use client::secret::{Fingerprint, Secret};
use engine::lock::Fence;
use engine::protocol::{Run, Trouble};
use rancher::api_token::{self, NewToken, TokenName};

use super::ClusterActor;
use super::snapshot::{LEFT, Left, MARK, Snapshot};
use crate::address::RancherAddress as _;
use crate::mark;
use crate::parked::{self, Slot};
use crate::rotation::view::Name;
use crate::rotation::write::Write;
use crate::rotation::{ArgocdRancher, leg};
use crate::sides::{RANCHER, of_argocd};

/// One request, with everything that it needs.
enum Request {
    Nothing,
    Park(Slot, Secret),
    Mint(Option<Name>),
    Config(Box<ClusterSecret>, Box<ClusterConfig>, rancher::Write),
    Revoke(TokenName),
    Unpark,
}

impl ClusterActor<'_> {
    pub(super) async fn write(&self, write: &Write, run: &Run<ArgocdRancher>, fence: &Fence) -> Result<(), Trouble> {
        let request = self.prepare(write, run)?;
        if !fence.is_open() {
            return Err(Trouble::LockLost);
        }
        let id = run.id.to_string();
        match request {
            Request::Nothing => Ok(()),
            Request::Park(slot, value) => {
                let run = parked::Run {
                    id,
                    user: run.notes.user.clone(),
                    keep_old: run.notes.keep_old,
                };
                self.park(&run, slot, &value, false).await
            }
            Request::Mint(replaces) => self.mint(&id, replaces).await,
            Request::Config(cluster, config, write) => self.patch(&cluster, &config, &write).await,
            Request::Revoke(name) => {
                let deleted = api_token::delete(&self.fleet.rancher.client.0, &name).await;
                deleted.map(drop).map_err(|error| error.on(RANCHER).into())
            }
            Request::Unpark => self.unpark().await,
        }
    }

    /// Finds the objects and values that a write needs, in what was read last.
    fn prepare(&self, write: &Write, run: &Run<ArgocdRancher>) -> Result<Request, Trouble> {
        let value = |fingerprint| self.value_to_write(fingerprint);
        Ok(match write {
            Write::Keep => Request::Nothing,
            Write::ParkOld { value: old, .. } => Request::Park(Slot::Old, value(*old)?),
            Write::ParkNew { value: new, .. } => Request::Park(Slot::New, value(*new)?),
            Write::Mint { replaces } => Request::Mint(replaces.clone()),
            Write::Revoke { name, .. } => {
                let name = name.0.parse();
                Request::Revoke(name.map_err(|_| Trouble::Fatal(Error::failed("a token has a name that cannot be")))?)
            }
            Write::Unpark => Request::Unpark,
            Write::Place {
                name, value: new, used, ..
            } => {
                let new = value(*new)?;
                let state = self.state();
                let (snapshot, cluster, config) = seen(state.snapshot.as_ref())?;
                let left = Left {
                    placed_at: Some(self.argo().server.clock.now()),
                    used_before: used.clone(),
                    ..left(run)
                };
                let write = marked(written(snapshot, name.as_ref(), &new), run, &left)?;
                Request::Config(
                    Box::new(cluster.clone()),
                    Box::new(config.clone().with_bearer(&new)),
                    write,
                )
            }
            Write::Guard => {
                let state = self.state();
                let (snapshot, cluster, config) = seen(state.snapshot.as_ref())?;
                let before = snapshot.left().filter(|before| before.old == run.notes.old);
                let write = marked(
                    rancher::Write::by(mark::TOOL),
                    run,
                    &before.unwrap_or_else(|| left(run)),
                )?;
                Request::Config(Box::new(cluster.clone()), Box::new(config.clone()), write)
            }
        })
    }

    fn value_to_write(&self, fingerprint: Fingerprint) -> Result<Secret, Trouble> {
        let state = self.state();
        let minted = || state.minted.values().find(|value| value.fingerprint() == fingerprint);
        let value = state.known.get(&fingerprint).or_else(minted);
        value.cloned().ok_or(Trouble::Changed)
    }

    async fn park(&self, run: &parked::Run, slot: Slot, value: &Secret, dry_run: bool) -> Result<(), Trouble> {
        let seen = self
            .state()
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.parked.clone());
        let put = self.parked.put(seen.as_ref(), run, slot, value, dry_run).await;
        of_parked(put)
    }

    async fn unpark(&self) -> Result<(), Trouble> {
        let seen = self
            .state()
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.parked.clone());
        let seen = seen.ok_or(Trouble::Changed)?;
        let deleted = self.parked.delete(&seen).await;
        of_parked(deleted)
    }

    /// The value is known to this process alone until it is parked; if it is killed before, the token is found by its mark and
    /// ended.
    async fn mint(&self, run: &str, replaces: Option<Name>) -> Result<(), Trouble> {
        let (_, cluster) = self.cluster.server.rancher().ok_or(Trouble::Changed)?;
        let object = &self.cluster.object;
        let mut mark = mark::of_run(run, &object.namespace, &object.name, self.fleet.identity.as_deref());
        mark.replaces = replaces.map(|name| name.0);
        let new = NewToken {
            cluster: Some(cluster).filter(|_| !self.options.unscoped),
            lifetime: self.options.ttl,
            mark,
        };
        let minted = api_token::mint(&self.fleet.rancher.client.0, &new).await;
        let minted = minted.map_err(|error| error.on(RANCHER))?;
        let mut state = self.state();
        state.known.insert(minted.value.fingerprint(), minted.value.clone());
        state.minted.insert(minted.token.name.clone(), minted.value);
        state.granted = Some(minted.token);
        Ok(())
    }

    async fn patch(
        &self,
        cluster: &ClusterSecret,
        config: &ClusterConfig,
        write: &rancher::Write,
    ) -> Result<(), Trouble> {
        let client = &self.argo().server.client;
        match cluster_secret::patch_config(client, &cluster.object, config, write).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() || error.is_not_found() => Err(Trouble::Changed),
            Err(error) => Err(of_argocd(error).into()),
        }
    }

    /// Lets the server check that a value may be parked. `None`: nothing was seen yet.
    pub async fn check_parking(&self) -> Option<Result<(), Error>> {
        let token = self.cluster.token()?;
        let seen = self.state().snapshot.as_ref()?.parked.clone();
        let run = parked::Run {
            id: "check".to_owned(),
            ..parked::Run::default()
        };
        let put = self.parked.put(seen.as_ref(), &run, Slot::Old, &token, true).await;
        Some(put.map_err(of_argocd))
    }

    /// Lets the server check that the cluster Secret may be written. `None`: nothing was seen yet.
    pub async fn check_placing(&self) -> Option<Result<(), Error>> {
        let cluster = self.state().snapshot.as_ref()?.cluster.clone()?;
        let config = cluster.config.as_ref().ok()?;
        let write = rancher::Write::by(mark::TOOL).dry_run(true).marked(MARK, "check");
        let client = &self.argo().server.client;
        let patched = cluster_secret::patch_config(client, &cluster.object, config, &write).await;
        Some(patched.map(drop).map_err(of_argocd))
    }
}

fn seen(snapshot: Option<&Snapshot>) -> Result<(&Snapshot, &ClusterSecret, &ClusterConfig), Trouble> {
    let snapshot = snapshot.ok_or(Trouble::Changed)?;
    let cluster = snapshot.cluster.as_ref().ok_or(Trouble::Changed)?;
    let config = cluster.config.as_ref().map_err(|_| Trouble::Changed)?;
    Ok((snapshot, cluster, config))
}

/// What a run leaves on the cluster Secret besides what it has put there.
fn left(run: &Run<ArgocdRancher>) -> Left {
    Left {
        user: run.notes.user.clone(),
        old: run.notes.old.clone(),
        keep_old: run.notes.keep_old,
        placed: run.notes.placed.clone(),
        placed_at: None,
        used_before: None,
    }
}

fn marked(write: rancher::Write, run: &Run<ArgocdRancher>, left: &Left) -> Result<rancher::Write, Trouble> {
    let text = serde_json::to_string(left).map_err(|error| Trouble::Fatal(Error::failed(error.to_string())))?;
    Ok(write
        .marked(MARK, leg(run).mark(&run.id.to_string()))
        .marked(LEFT, text))
}

/// What the Secret says of the token that it gets.
fn written(snapshot: &Snapshot, name: Option<&Name>, value: &Secret) -> rancher::Write {
    let token = name.and_then(|name| snapshot.token(&name.0));
    token.map_or_else(|| mark::write_unknown(value), mark::write)
}

/// Changed, gone or there already: observe again.
fn of_parked(answer: request::Result<()>) -> Result<(), Trouble> {
    match answer {
        Err(error) if error.is_conflict() || error.is_not_found() => Err(Trouble::Changed),
        other => Ok(other.map_err(of_argocd)?),
    }
}
