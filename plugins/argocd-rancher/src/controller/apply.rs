//! Applies single steps: each is one request on one object, conditional on the version that was read last.

use argocd::{ClusterConfig, ClusterSecret, cluster_secret};
use client::error::Error;
use client::request;
use client::secret::{Fingerprint, Secret};
use engine::controller::{Failure, ServerCheck};
use engine::direction;
use engine::lock::Fence;
use engine::run::Run;
use rancher::Write;
use rancher::api_token::{NewToken, TokenName};

use super::ClusterController;
use super::abstraction::{DETAILS, Snapshot, WrittenDetails};
use crate::address::RancherAddress as _;
use crate::backup::{BackupMark, StoredBackup};
use crate::connections::of_argocd;
use crate::mark;
use crate::rotation::ArgocdRancher;
use crate::rotation::observed::{Name, TokenRef};
use crate::rotation::step::{Step, Which};

/// One request, with everything that it needs.
enum Request {
    BackUp(Which, Secret),
    Issue(Option<Name>),
    Config(Box<ClusterSecret>, Box<ClusterConfig>, Write),
    Revoke(TokenName),
    DeleteBackup,
}

impl ClusterController<'_> {
    pub(super) async fn send(&self, step: &Step, run: &Run<ArgocdRancher>, fence: &Fence) -> Result<(), Failure> {
        let request = self.prepare(step, run)?;
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        match request {
            Request::BackUp(which, value) => {
                let mark = BackupMark {
                    run: run.id.to_string(),
                    user: run.record.user.clone(),
                    keep_old: run.record.keep_old,
                };
                self.back_up(&mark, which, &value).await
            }
            Request::Issue(replaces) => self.issue(&run.id.to_string(), replaces).await,
            Request::Config(cluster, config, write) => self.patch(&cluster, &config, &write).await,
            Request::Revoke(name) => Ok(self.fleet.rancher.revoke(&name).await?),
            Request::DeleteBackup => self.delete_backup().await,
        }
    }

    /// Collects the objects and values that a step needs, from the last observation.
    fn prepare(&self, step: &Step, run: &Run<ArgocdRancher>) -> Result<Request, Failure> {
        Ok(match step {
            Step::BackUp { which, token } => Request::BackUp(*which, self.value_to_write(token.value)?),
            Step::Issue { replaces } => Request::Issue(replaces.clone()),
            Step::Revoke { name, .. } => {
                let name = name.0.parse();
                Request::Revoke(name.map_err(|_| Failure::Permanent(Error::failed("a token has an invalid name")))?)
            }
            Step::DeleteBackup => Request::DeleteBackup,
            Step::Place { which, token, used } => {
                let value = self.value_to_write(token.value)?;
                let state = self.state();
                let (snapshot, cluster, config) = read_last(state.snapshot.as_ref())?;
                let written = WrittenDetails {
                    details: run.record.details(used.clone()),
                    placed_at: Some(self.argo().server.clock.now()),
                };
                let mut write = annotated(snapshot, token, &value);
                if let (Which::New, true, Some(old)) = (which, run.record.keep_old, &run.record.old.name) {
                    write = mark::keeping(write, cluster, &old.0, &snapshot.tokens);
                }
                let write = marked(write, run, &written)?;
                let config = config.clone().with_bearer(&value);
                Request::Config(Box::new(cluster.clone()), Box::new(config), write)
            }
            Step::Fence => {
                let state = self.state();
                let (_, cluster, config) = read_last(state.snapshot.as_ref())?;
                let before = WrittenDetails::read(cluster).filter(|before| before.details.old == run.record.old);
                let (used_before, placed_at) =
                    before.map_or((None, None), |before| (before.details.used_before, before.placed_at));
                let written = WrittenDetails {
                    details: run.record.details(used_before),
                    placed_at,
                };
                let write = marked(Write::by(mark::TOOL), run, &written)?;
                Request::Config(Box::new(cluster.clone()), Box::new(config.clone()), write)
            }
        })
    }

    fn value_to_write(&self, fingerprint: Fingerprint) -> Result<Secret, Failure> {
        let state = self.state();
        let issued = || state.issued.values().find(|value| value.fingerprint() == fingerprint);
        let value = state.known.get(&fingerprint).or_else(issued);
        value.cloned().ok_or(Failure::Conflict)
    }

    async fn back_up(&self, mark: &BackupMark, which: Which, value: &Secret) -> Result<(), Failure> {
        let read = self.read_backup();
        let put = self.backup.put(read.as_ref(), mark, which, value, false).await;
        of_backup(put)
    }

    async fn delete_backup(&self) -> Result<(), Failure> {
        let read = self.read_backup().ok_or(Failure::Conflict)?;
        let deleted = read.delete(&self.argo().server.client).await;
        of_backup(deleted)
    }

    pub(super) fn read_backup(&self) -> Option<StoredBackup> {
        self.state().snapshot.as_ref()?.backup.clone()
    }

    /// Only this process has the value until it is backed up. If it is killed before that, the token is found by its mark and revoked.
    async fn issue(&self, run: &str, replaces: Option<Name>) -> Result<(), Failure> {
        let (_, cluster) = self.cluster.server.rancher().ok_or(Failure::Conflict)?;
        let object = &self.cluster.object;
        let mut mark = mark::of_run(run, &object.namespace, &object.name, self.fleet.identity.as_deref());
        mark.replaces = replaces.map(|name| name.0);
        let new = NewToken {
            cluster: Some(cluster).filter(|_| !self.options.unscoped),
            lifetime: self.options.ttl,
            mark,
        };
        let issued = self.fleet.rancher.issue(&new).await?;
        let mut state = self.state();
        state.known.insert(issued.value.fingerprint(), issued.value.clone());
        state.issued.insert(issued.token.name.clone(), issued.value);
        state.granted = Some(issued.token);
        Ok(())
    }

    async fn patch(&self, cluster: &ClusterSecret, config: &ClusterConfig, write: &Write) -> Result<(), Failure> {
        let client = &self.argo().server.client;
        match cluster_secret::patch_config(client, &cluster.object, config, write).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() || error.is_not_found() => Err(Failure::Conflict),
            Err(error) => Err(of_argocd(error).into()),
        }
    }

    pub(super) async fn check(&self, step: &Step) -> ServerCheck {
        let checked = match step {
            Step::BackUp { which: Which::Old, .. } => self.check_backup().await,
            Step::Place { .. } => self.check_place().await,
            _ => None,
        };
        checked.map_or(ServerCheck::NotChecked("Rancher has no dry run"), Into::into)
    }

    async fn check_backup(&self) -> Option<Result<(), Error>> {
        let token = self.cluster.token()?;
        let read = self.read_backup();
        let mark = BackupMark {
            run: "check".to_owned(),
            ..BackupMark::default()
        };
        let put = self.backup.put(read.as_ref(), &mark, Which::Old, &token, true).await;
        Some(put.map_err(of_argocd))
    }

    async fn check_place(&self) -> Option<Result<(), Error>> {
        let cluster = self.state().snapshot.as_ref()?.cluster.clone()?;
        let config = cluster.config.as_ref().ok()?;
        let write = Write::by(mark::TOOL)
            .dry_run(true)
            .marked(direction::ANNOTATION, "check");
        let client = &self.argo().server.client;
        let patched = cluster_secret::patch_config(client, &cluster.object, config, &write).await;
        Some(patched.map(drop).map_err(of_argocd))
    }
}

fn read_last(snapshot: Option<&Snapshot>) -> Result<(&Snapshot, &ClusterSecret, &ClusterConfig), Failure> {
    let snapshot = snapshot.ok_or(Failure::Conflict)?;
    let cluster = snapshot.cluster.as_ref().ok_or(Failure::Conflict)?;
    let config = cluster.config.as_ref().map_err(|_| Failure::Conflict)?;
    Ok((snapshot, cluster, config))
}

fn marked(write: Write, run: &Run<ArgocdRancher>, written: &WrittenDetails) -> Result<Write, Failure> {
    let text = serde_json::to_string(written);
    let text = text.map_err(|error| Failure::Permanent(Error::failed(error.to_string())))?;
    Ok(write
        .marked(direction::ANNOTATION, run.direction.mark(&run.id.to_string()))
        .marked(DETAILS, text))
}

/// The annotations of the Secret about its new token.
fn annotated(snapshot: &Snapshot, token: &TokenRef, value: &Secret) -> Write {
    let token = token.name.as_ref().and_then(|name| snapshot.token(name));
    token.map_or_else(|| mark::write_unknown(value), mark::write)
}

/// A conflict leads to another observation.
fn of_backup(result: request::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.is_conflict() || error.is_not_found() => Err(Failure::Conflict),
        other => Ok(other.map_err(of_argocd)?),
    }
}
