//! Sends single steps. Each carries the identity and version of the object that was read last, and asks the fence first.

use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::controller::Failure;
use engine::direction;
use engine::lock::Fence;
use engine::run::Run;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rancher::agent::{self, Credentials, CredentialsContent, Hold, Placement};
use rancher::cluster;
use rancher::credential_name::Formula;
use rancher::token_storage::TokenStorage;
use rancher::object;
use rancher::settings;
use rancher::token::{
    self, Change, NewToken, RegistrationToken, SYSTEM, SecretChange, StatusChange, TokenSecret, generate,
};

use super::abstraction::{MARK, Snapshot, TEMPORARY_LABEL, TRIGGERED};
use super::{CrtController, FIELD_MANAGER, State};
use crate::rotation::Crt;
use crate::rotation::record::{Mark, Rollout};
use crate::rotation::step::Step;
use crate::sides::{DOWNSTREAM, MANAGEMENT};

/// How long a previous token is kept valid, so that an interrupted rotation can be resumed; renewed on resume.
const GRACE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// For how long a rollout is held, in seconds, for all replicas together: each agent deletes foreign Secrets older than an hour,
/// so the rollout must be over well before, also if no one resumes the run.
const HOLD: i32 = 1200;
/// `progressDeadlineSeconds` of a held rollout; the API server wants it larger than `minReadySeconds`.
const HELD_DEADLINE: i32 = 3600;
/// On what a run creates: the run.
const RUN: &str = "kubectl-rotation.github.io/run";
/// Setting: how long Rancher lets a registration token live, in minutes.
const DEFAULT_TTL: &str = "crt-default-ttl-minutes";
/// What Rancher takes where that setting says nothing: 30 days.
const USUAL_TTL: SignedDuration = SignedDuration::from_hours(30 * 24);

impl CrtController<'_> {
    pub(super) async fn send(&self, step: &Step, run: &Run<Crt>, fence: &Fence) -> Result<(), Failure> {
        let expiry = self.expiry(step).await;
        let request = self.prepare(step, run, expiry)?;
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        let (above, below) = (&self.sides.management.client, &self.downstream.server.client);
        let by = Self::written_by(run);
        let marked = marked(run)?;
        match request {
            Request::CreateToken(new) => on_management(token::create(above, &self.sides.cluster.id, &new, &by).await),
            Request::CreateSystem(new) => {
                on_management(token::create(above, &self.sides.cluster.id, &new, &marked).await)
            }
            Request::SetSystem(at, value) => on_management(token::set_status_value(above, &at, &value, &marked).await),
            Request::ChangeSystem(at, change) => {
                on_management(token::change_secret(above, &at, &change, &marked).await)
            }
            Request::SetPlain(at, value) => on_management(token::set_status_value(above, &at, &value, &by).await),
            Request::ChangeSecret(at, change) => on_management(token::change_secret(above, &at, &change, &by).await),
            Request::ChangeStatus(at, change) => on_management(token::change_status(above, &at, &change, &by).await),
            Request::DeleteToken(at) => on_management(token::delete(above, &at, &by).await),
            Request::Trigger(at, token) => {
                let now = self.sides.management.clock.now();
                let triggered = format!("{now} {token}");
                let touched =
                    cluster::trigger_reconcile(above, &at, (TRIGGERED, &triggered), &object::Write::by(FIELD_MANAGER)).await;
                if let Ok(cluster) = &touched {
                    // Ours does not count as one of Rancher's.
                    self.state().cluster_version = Some((cluster.object.resource_version.clone(), now));
                }
                on_management(touched)
            }
            Request::CreateCredentials(name, content) => {
                let of_run = [(RUN.to_owned(), run.id.to_string())].into();
                on_downstream(agent::create_credentials(below, &name, &content, &of_run, &by).await)
            }
            Request::DeleteCredentials(at) => on_downstream(agent::delete_credentials(below, &at, &by).await),
            Request::Place(deployment, placement) => {
                on_downstream(agent::place(below, &deployment, &placement, &by).await)
            }
            Request::Fence(deployment) => on_downstream(agent::mark(below, &deployment, &by).await),
            Request::Release(deployment, hold) => on_downstream(agent::release(below, &deployment, hold, &by).await),
        }
    }

    /// A rollback marks what it changes: that is how a later look knows that this run has changed it.
    fn written_by(run: &Run<Crt>) -> object::Write {
        let by = object::Write::by(FIELD_MANAGER);
        if run.direction.is_rollback() {
            by.marked(direction::ANNOTATION, run.direction.mark(&run.id.to_string()))
        } else {
            by
        }
    }

    /// When a token that is written now is to be rotated by Rancher itself.
    async fn expiry(&self, step: &Step) -> Option<Timestamp> {
        let (Step::SetNew | Step::DropPrevious { .. } | Step::Renew { .. }) = step else {
            return None;
        };
        let ttl = self.ttl.get_or_try_init(|| self.read_ttl()).await;
        let ttl = ttl.copied().unwrap_or(USUAL_TTL);
        self.sides.management.clock.now().checked_add(ttl).ok()
    }

    async fn read_ttl(&self) -> rancher::Result<SignedDuration> {
        let setting = settings::setting(&self.sides.management.client, DEFAULT_TTL).await?;
        let minutes = setting.and_then(|setting| setting.effective()?.parse().ok());
        let minutes = minutes.filter(|minutes| *minutes > 0);
        Ok(minutes.map_or(USUAL_TTL, SignedDuration::from_mins))
    }

    /// Finds the objects and values that a step needs, in what was read last.
    fn prepare(&self, step: &Step, run: &Run<Crt>, expiry: Option<Timestamp>) -> Result<Request, Failure> {
        let state = self.state();
        let Some(snapshot) = &state.snapshot else {
            return Err(Failure::Conflict);
        };
        let rollout = run.record.rollout;
        let placed = |token: Fingerprint, hold: Hold, restarted_at: Change<String>| {
            let secret = state.names.of(token).ok_or(Failure::Conflict)?.to_owned();
            Ok::<_, Failure>(Request::Place(
                Box::new(snapshot.deployment.clone()),
                Placement {
                    secret,
                    hold: Some(hold),
                    restarted_at,
                    // Only where it differs: a patch of variables also orders them, which would be another template.
                    address: Some(&run.record.home)
                        .filter(|home| run.direction.is_rollback() && **home != snapshot.home())
                        .cloned(),
                },
            ))
        };
        Ok(match step {
            Step::Adopt { .. } => {
                let system = state.system()?;
                if let Some(secret) = system.secret.as_ref().filter(|_| snapshot.era == TokenStorage::Secret) {
                    Request::ChangeSystem(secret.object.clone(), SecretChange::default())
                } else {
                    let value = system.current().cloned().ok_or(Failure::Conflict)?;
                    Request::SetSystem(system.object.clone(), value)
                }
            }
            Step::CreateTemporary { token } => Request::CreateToken(NewToken {
                // Provisioned clusters deploy the first token by name: a temporary one must be the last.
                name: format!("zz-crt-temporary-{token}"),
                value: Some(state.value(*token)?),
                labels: [
                    (TEMPORARY_LABEL.to_owned(), "true".to_owned()),
                    (RUN.to_owned(), run.id.to_string()),
                ]
                .into(),
                ..NewToken::default()
            }),
            Step::DeleteTemporary { token } => {
                let holds = |temporary: &&RegistrationToken| {
                    temporary.current().is_some_and(|value| value.fingerprint() == *token)
                };
                let temporary = snapshot.temporary().find(holds).ok_or(Failure::Conflict)?;
                Request::DeleteToken(temporary.object.clone())
            }
            Step::SetNew => self.set_system(&state, run.record.new.ok_or(Failure::Conflict)?, expiry)?,
            Step::Restore { token } => self.set_system(&state, *token, None)?,
            Step::Protect { token } => {
                let change = SecretChange {
                    previous: Change::Set(state.value(*token)?),
                    ..self.protection(&state, None)?
                };
                Request::ChangeSecret(state.system_secret()?.object.clone(), change)
            }
            Step::DropPrevious { .. } => {
                let secret = state.system_secret()?;
                let change = SecretChange {
                    previous: Change::Remove,
                    grace_ends_at: Change::Remove,
                    expires_at: if_there(secret.expires_at, expiry),
                    ..SecretChange::default()
                };
                Request::ChangeSecret(secret.object.clone(), change)
            }
            Step::PostponeGrace => state.status_grace(Change::Set(self.later(GRACE)?))?,
            Step::ClearGrace => state.status_grace(Change::Remove)?,
            Step::Renew { name } => state.renew(name, expiry)?,
            Step::CreateCredentials { token } => {
                let name = state.names.of(*token).ok_or(Failure::Conflict)?.to_owned();
                Request::CreateCredentials(name.clone(), self.content(&state, &name, *token)?)
            }
            Step::DeleteCredentials { token } => Request::DeleteCredentials(state.credentials(*token)?.object.clone()),
            Step::PointHeld { token } => {
                let mark = run.record.restarted_at.clone().ok_or(Failure::Conflict)?;
                placed(*token, hold_for(snapshot.deployment.replicas), Change::Set(mark))?
            }
            Step::PointBack { token } => {
                let name = state.names.of(*token);
                let mut staying = snapshot
                    .pods
                    .iter()
                    .filter(|pod| pod.ready && !pod.terminating && pod.secret.as_deref() == name);
                let mark = staying.next().ok_or(Failure::Conflict)?.restarted_at.clone();
                placed(*token, hold_of(rollout), mark.map_or(Change::Remove, Change::Set))?
            }
            Step::Fence => Request::Fence(Box::new(snapshot.deployment.clone())),
            Step::Release => Request::Release(Box::new(snapshot.deployment.clone()), hold_of(rollout)),
            Step::TriggerApply => {
                let token = state.system()?.current().ok_or(Failure::Conflict)?.fingerprint();
                Request::Trigger(snapshot.cluster.object.clone(), token)
            }
        })
    }

    /// `system` gets this value; in storage `secret` what it had becomes the previous one, with a grace that outlasts an interruption.
    fn set_system(&self, state: &State, token: Fingerprint, expiry: Option<Timestamp>) -> Result<Request, Failure> {
        let value = state.value(token)?;
        let snapshot = state.snapshot.as_ref().ok_or(Failure::Conflict)?;
        let Some(system) = snapshot.system() else {
            let creator = [("cattle.io/creator".to_owned(), "norman".to_owned())].into();
            return Ok(Request::CreateSystem(NewToken {
                name: SYSTEM.to_owned(),
                value: Some(value),
                labels: creator,
                ..NewToken::default()
            }));
        };
        if snapshot.era == TokenStorage::Status {
            return Ok(Request::SetSystem(system.object.clone(), value));
        }
        let secret = state.system_secret()?;
        let before = system.current().filter(|before| **before != value);
        // A grace without a previous token to protect would never end.
        let protection = if before.is_some() || secret.previous.is_some() {
            self.protection(state, expiry)?
        } else {
            SecretChange::default()
        };
        let change = SecretChange {
            previous: before.map_or(Change::Keep, |before| Change::Set(before.clone())),
            current: Some(value),
            ..protection
        };
        Ok(Request::ChangeSystem(secret.object.clone(), change))
    }

    /// Neither the end of grace nor Rancher's own rotation drops the previous token in the next days.
    fn protection(&self, state: &State, expiry: Option<Timestamp>) -> Result<SecretChange, Failure> {
        let far = self.later(GRACE)?;
        let expires_at = state
            .system_secret()?
            .expires_at
            .map(|at| at.max(far).max(expiry.unwrap_or(far)));
        Ok(SecretChange {
            grace_ends_at: Change::Set(far),
            expires_at: expires_at.map_or(Change::Keep, Change::Set),
            ..SecretChange::default()
        })
    }

    fn later(&self, by: SignedDuration) -> Result<Timestamp, Failure> {
        let later = self.sides.management.clock.now().checked_add(by);
        later.map_err(|error| Failure::Permanent(Error::failed(format!("the server's clock makes no sense: {error}"))))
    }

    /// What Rancher itself would write; under the name that the agent started with, what it had.
    fn content(&self, state: &State, name: &str, token: Fingerprint) -> Result<CredentialsContent, Failure> {
        let snapshot = state.snapshot.as_ref().ok_or(Failure::Conflict)?;
        let value = state.value(token)?;
        let url = self.server_url(snapshot);
        let imported = Formula::ALL
            .into_iter()
            .any(|formula| formula.name(&url, &value, "") == name);
        let namespace = if imported {
            String::new()
        } else {
            snapshot.cluster.id.to_string()
        };
        Ok(CredentialsContent {
            url,
            token: value,
            namespace,
        })
    }
}

/// A write of `system` carries the mark of the run: whoever resumes it reads it there.
fn marked(run: &Run<Crt>) -> Result<object::Write, Failure> {
    let text = serde_json::to_string(&Mark::of(run));
    let text = text
        .map_err(|error| Failure::Permanent(Error::failed(format!("cannot serialize the mark of the run: {error}"))))?;
    Ok(object::Write::by(FIELD_MANAGER).marked(MARK, text))
}

/// One request, with everything that it needs.
enum Request {
    CreateToken(NewToken),
    /// These three carry the mark of the run.
    CreateSystem(NewToken),
    SetSystem(object::Observed, Secret),
    ChangeSystem(object::Observed, SecretChange),
    SetPlain(object::Observed, Secret),
    ChangeSecret(object::Observed, SecretChange),
    ChangeStatus(object::Observed, StatusChange),
    DeleteToken(object::Observed),
    Trigger(object::Observed, Fingerprint),
    CreateCredentials(String, CredentialsContent),
    DeleteCredentials(object::Observed),
    Place(Box<agent::Deployment>, Placement),
    Fence(Box<agent::Deployment>),
    Release(Box<agent::Deployment>, Hold),
}

impl State {
    /// A value: one that was drawn, or one that was read.
    fn value(&self, token: Fingerprint) -> Result<Secret, Failure> {
        let read = || {
            self.snapshot
                .as_ref()
                .and_then(|snapshot| snapshot.values().remove(&token))
        };
        let value = self.known.get(&token).cloned().or_else(read);
        value.ok_or_else(|| Failure::Transient(Error::failed(format!("no object holds the value of {token} any more"))))
    }

    fn system(&self) -> Result<&RegistrationToken, Failure> {
        self.snapshot
            .as_ref()
            .and_then(Snapshot::system)
            .ok_or(Failure::Conflict)
    }

    fn system_secret(&self) -> Result<&TokenSecret, Failure> {
        self.system()?.secret.as_ref().ok_or(Failure::Conflict)
    }

    fn credentials(&self, token: Fingerprint) -> Result<&Credentials, Failure> {
        let name = self.names.of(token);
        let found = self.snapshot.iter().flat_map(|snapshot| &snapshot.credentials);
        let mut found = found.filter(|credentials| Some(credentials.object.name.as_str()) == name);
        found.next().ok_or(Failure::Conflict)
    }

    fn status_grace(&self, change: Change<Timestamp>) -> Result<Request, Failure> {
        let change = StatusChange {
            grace_ends_at: change,
            ..StatusChange::default()
        };
        Ok(Request::ChangeStatus(self.system()?.object.clone(), change))
    }

    /// Another token gets a value that is never shown.
    fn renew(&self, name: &str, expiry: Option<Timestamp>) -> Result<Request, Failure> {
        let snapshot = self.snapshot.as_ref().ok_or(Failure::Conflict)?;
        let value = generate().map_err(|error| Failure::Permanent(error.on(MANAGEMENT)))?;
        let token = snapshot.others().find(|token| token.object.name == name);
        let orphan = || snapshot.orphans().find(|secret| secret.object.name == name);
        let secret = match token {
            Some(token) if snapshot.era == TokenStorage::Status => return Ok(Request::SetPlain(token.object.clone(), value)),
            Some(token) => token.secret.as_ref(),
            None => orphan(),
        };
        let secret = secret.ok_or(Failure::Conflict)?;
        let change = SecretChange {
            current: Some(value),
            previous: if secret.previous.is_some() {
                Change::Remove
            } else {
                Change::Keep
            },
            grace_ends_at: if secret.grace_ends_at.is_some() {
                Change::Remove
            } else {
                Change::Keep
            },
            expires_at: if_there(secret.expires_at, expiry),
        };
        Ok(Request::ChangeSecret(secret.object.clone(), change))
    }
}

/// Rancher's own rotation is on for a token that has an expiry, and stays off for one that has none.
fn if_there(now: Option<Timestamp>, new: Option<Timestamp>) -> Change<Timestamp> {
    now.and(new).map_or(Change::Keep, Change::Set)
}

fn hold_for(replicas: i32) -> Hold {
    Hold {
        min_ready_seconds: HOLD / replicas.max(1),
        progress_deadline_seconds: HELD_DEADLINE,
    }
}

fn hold_of(rollout: Rollout) -> Hold {
    Hold {
        min_ready_seconds: rollout.min_ready_seconds,
        progress_deadline_seconds: rollout.progress_deadline_seconds,
    }
}

fn on_management<T>(answer: rancher::Result<T>) -> Result<(), Failure> {
    answer.map(drop).map_err(|error| sent(error, MANAGEMENT))
}

fn on_downstream<T>(answer: rancher::Result<T>) -> Result<(), Failure> {
    answer.map(drop).map_err(|error| sent(error, DOWNSTREAM))
}

/// Changed, gone or there already: observe again. A step whose answer is lost may have been carried out: observe too.
fn sent(error: rancher::Error, side: &str) -> Failure {
    if error.is_conflict() || error.is_not_found() {
        Failure::Conflict
    } else {
        error.on(side).into()
    }
}
