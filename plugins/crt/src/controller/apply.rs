//! Sends single steps. Each carries the uid and resourceVersion of the object that was read last, and checks the fence first.

use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::controller::Failure;
use engine::direction;
use engine::lock::Fence;
use engine::run::Run;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rancher::TokenStorage;
use rancher::agent::{self, Credentials, CredentialsContent, Placement};
use rancher::cluster;
use rancher::credential_name::Formula;
use rancher::object;
use rancher::settings;
use rancher::token::{self, Change, NewToken, RegistrationToken, SYSTEM, SecretChange, TokenSecret, generate};
use serde::Serialize;

use super::abstraction::{
    MARK, REACTIVATED, REACTIVATED_VALUE, REACTIVATION, RUN, Snapshot, TEMPORARY_LABEL, TRIGGERED,
};
use super::{CrtController, FIELD_MANAGER, State};
use crate::connections::{DOWNSTREAM, MANAGEMENT};
use crate::rotation::Crt;
use crate::rotation::observed::{Reactivated, no_token};
use crate::rotation::record::{Mark, OtherMark, RolloutSettings};
use crate::rotation::step::Step;

/// A token without a previous value.
const NO_PREVIOUS: SecretChange = SecretChange {
    current: None,
    previous: Change::Remove,
    expires_at: Change::Keep,
    grace_ends_at: Change::Remove,
};
/// How long a previous token is kept valid, so that an interrupted rotation can be resumed; renewed on resume.
pub(super) const GRACE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// For how long a rollout is held, in seconds, for all replicas together. Each agent deletes other Secrets that are older than an
/// hour, so the rollout must be complete much earlier, even if the run is not resumed.
const HOLD: i32 = 1200;
/// `progressDeadlineSeconds` of a held rollout, which must be larger than `minReadySeconds`.
const HELD_DEADLINE: i32 = 3600;
/// The setting for the time to live of a registration token, in minutes.
const DEFAULT_TTL: &str = "crt-default-ttl-minutes";
/// Rancher's default of that setting: 30 days.
const FALLBACK_TTL: SignedDuration = SignedDuration::from_hours(30 * 24);

impl CrtController<'_> {
    pub(super) async fn send(&self, step: &Step, run: &Run<Crt>, fence: &Fence) -> Result<(), Failure> {
        let expiry = self.expiry(step).await;
        let request = self.prepare(step, run, expiry)?;
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        let (management, downstream) = (&self.connections.management.client, &self.downstream.server.client);
        let by = Self::written_by(run);
        let marked = marked(run)?;
        match request {
            Request::CreateToken(new) => {
                on_management(token::create(management, &self.connections.cluster.id, &new, &by).await)
            }
            Request::CreateSystem(new) => {
                on_management(token::create(management, &self.connections.cluster.id, &new, &marked).await)
            }
            Request::SetSystem(at, value) => {
                on_management(token::set_status_value(management, &at, &value, &marked).await)
            }
            Request::ChangeSystem(at, change) => {
                on_management(token::change_secret(management, &at, &change, &marked).await)
            }
            Request::SetOther(at, value, by) => {
                on_management(token::set_status_value(management, &at, &value, &by).await)
            }
            Request::ChangeOther(at, change, by) => {
                on_management(token::change_secret(management, &at, &change, &by).await)
            }
            Request::SetPlain(at, value) => on_management(token::set_status_value(management, &at, &value, &by).await),
            Request::ChangeSecret(at, change) => {
                on_management(token::change_secret(management, &at, &change, &by).await)
            }
            Request::ChangeStatusGrace(at, change) => {
                on_management(token::change_status_grace(management, &at, &change, &by).await)
            }
            Request::DeleteToken(at) => on_management(token::delete(management, &at, &by).await),
            Request::Trigger {
                cluster: at,
                token,
                first,
                redeploy,
            } => {
                let now = self.connections.management.clock.now();
                let first = first.map_or_else(String::new, |first| format!(" {first}"));
                let triggered = format!("{now} {token}{first}");
                let write = object::Write::by(FIELD_MANAGER);
                let mut annotations = vec![(TRIGGERED, triggered.as_str())];
                annotations.extend(redeploy.then_some((cluster::FORCE_DEPLOY, "true")));
                let cluster = cluster::trigger_reconcile(management, &at, &annotations, &write).await;
                if let Ok(cluster) = &cluster {
                    // Our own write does not count as one of Rancher's.
                    self.state().cluster_version = Some((cluster.object.resource_version.clone(), now));
                }
                on_management(cluster)
            }
            Request::CreateCredentials(name, content) => {
                let of_run = [(RUN.to_owned(), run.id.to_string())].into();
                on_downstream(agent::create_credentials(downstream, &name, &content, &of_run, &by).await)
            }
            Request::DeleteCredentials(at) => on_downstream(agent::delete_credentials(downstream, &at, &by).await),
            Request::Place(deployment, placement) => {
                on_downstream(agent::place(downstream, &deployment, &placement, &by).await)
            }
            Request::Fence(deployment) => on_downstream(agent::fence(downstream, &deployment, &by).await),
            Request::Release(deployment, rollout) => {
                on_downstream(agent::release(downstream, &deployment, rollout, &by).await)
            }
        }
    }

    /// A rollback marks what it changes, so that a later look knows that this run has changed it.
    fn written_by(run: &Run<Crt>) -> object::Write {
        let by = object::Write::by(FIELD_MANAGER);
        if run.direction.is_rollback() {
            by.marked(direction::ANNOTATION, run.direction.mark(&run.id.to_string()))
        } else {
            by
        }
    }

    /// When Rancher rotates a token that is written now.
    async fn expiry(&self, step: &Step) -> Option<Timestamp> {
        let (Step::SetNew | Step::DropPrevious { .. } | Step::Renew { .. }) = step else {
            return None;
        };
        let ttl = self.ttl.get_or_try_init(|| self.read_ttl()).await;
        let ttl = ttl.copied().unwrap_or(FALLBACK_TTL);
        self.connections.management.clock.now().checked_add(ttl).ok()
    }

    async fn read_ttl(&self) -> rancher::Result<SignedDuration> {
        let setting = settings::setting(&self.connections.management.client, DEFAULT_TTL).await?;
        let minutes = setting.and_then(|setting| setting.effective()?.parse().ok());
        let minutes = minutes.filter(|minutes| *minutes > 0);
        Ok(minutes.map_or(FALLBACK_TTL, SignedDuration::from_mins))
    }

    /// Finds the objects and values that a step needs, in what was read last.
    fn prepare(&self, step: &Step, run: &Run<Crt>, expiry: Option<Timestamp>) -> Result<Request, Failure> {
        let state = self.state();
        let Some(snapshot) = &state.snapshot else {
            return Err(Failure::Conflict);
        };
        let rollout = run.record.rollout;
        let placed = |token: Fingerprint, rollout: RolloutSettings, restarted_at: Change<String>| {
            let secret = state.names.of(token).ok_or(Failure::Conflict)?.to_owned();
            Ok::<_, Failure>(Request::Place(
                deployment(snapshot)?,
                Placement {
                    secret,
                    rollout: Some(rollout),
                    restarted_at,
                    // Only if it differs: a patch of variables also orders them, which changes the template.
                    // A run that began without permissions there has recorded none.
                    address: Some(&run.record.server_address)
                        .filter(|original| run.direction.is_rollback() && **original != snapshot.server_address())
                        .filter(|_| !run.record.old_secret.is_empty())
                        .cloned(),
                },
            ))
        };
        // Provisioned clusters deploy the first token by name, so a temporary one must be the last.
        let temporary = |what: &str, label: &str, token: Fingerprint| {
            Ok::<_, Failure>(Request::CreateToken(NewToken {
                name: format!("zz-crt-{what}-{token}"),
                value: Some(state.value(token)?),
                labels: [
                    (TEMPORARY_LABEL.to_owned(), label.to_owned()),
                    (RUN.to_owned(), run.id.to_string()),
                ]
                .into(),
                ..NewToken::default()
            }))
        };
        let triggered = |token: Fingerprint, redeploy: bool| Request::Trigger {
            cluster: snapshot.cluster.object.clone(),
            token,
            first: snapshot.planner_renders(),
            redeploy,
        };
        Ok(match step {
            Step::Adopt { .. } => {
                let system = state.system()?;
                if let Some(secret) = system
                    .secret
                    .as_ref()
                    .filter(|_| snapshot.storage == TokenStorage::Secret)
                {
                    Request::ChangeSystem(secret.object.clone(), SecretChange::default())
                } else {
                    let value = system.current().cloned().ok_or(Failure::Conflict)?;
                    Request::SetSystem(system.object.clone(), value)
                }
            }
            Step::CreateTemporary { token } => temporary("temporary", "true", *token)?,
            Step::DeleteTemporary { token } => {
                let holds = |temporary: &&RegistrationToken| {
                    temporary.current().is_some_and(|value| value.fingerprint() == *token)
                };
                let temporary = snapshot.temporary().find(holds).ok_or(Failure::Conflict)?;
                Request::DeleteToken(temporary.object.clone())
            }
            Step::SetNew => {
                let new = run.record.new.ok_or(Failure::Conflict)?;
                let before = state.system().ok().and_then(RegistrationToken::current);
                self.set_system(&state, new, before.map(Secret::fingerprint), expiry)?
            }
            Step::Restore { token, previous } => self.set_system(&state, *token, *previous, None)?,
            Step::SetOther {
                name,
                token,
                before,
                previous,
            } => {
                let mark = OtherMark {
                    run: run.id.to_string(),
                    direction: run.direction,
                    before: *before,
                };
                self.set_other(&state, name, (*token, *previous), &mark)?
            }
            Step::Protect { name, token } => {
                let secret = state.token_secret(name)?;
                let change = SecretChange {
                    previous: Change::Set(state.value(*token)?),
                    ..self.protection(secret, None)?
                };
                Request::ChangeSecret(secret.object.clone(), change)
            }
            Step::DropPrevious { name, .. } => {
                let secret = state.token_secret(name)?;
                let change = SecretChange {
                    expires_at: if_there(secret.expires_at, expiry),
                    ..NO_PREVIOUS
                };
                Request::ChangeSecret(secret.object.clone(), change)
            }
            Step::PostponeGrace { name } => state.status_grace(name, Change::Set(self.later(GRACE)?))?,
            Step::ClearGrace { name } => state.status_grace(name, Change::Remove)?,
            Step::Renew { name } => state.renew(name, expiry)?,
            Step::CreateCredentials { token } => {
                let name = state.names.of(*token).ok_or(Failure::Conflict)?.to_owned();
                Request::CreateCredentials(name.clone(), self.content(&state, run, &name, *token)?)
            }
            Step::DeleteCredentials { token } => Request::DeleteCredentials(state.credentials(*token)?.object.clone()),
            Step::DeleteLeftover { secret } => {
                let mut created = snapshot.created.iter();
                let found = created
                    .find(|created| created.name == *secret)
                    .ok_or(Failure::Conflict)?;
                Request::DeleteCredentials(found.clone())
            }
            Step::Hold => {
                let deployment = deployment(snapshot)?;
                let held = held(deployment.replicas);
                Request::Release(deployment, held)
            }
            Step::PointHeld { token } => {
                let mark = run.record.restarted_at.clone().ok_or(Failure::Conflict)?;
                placed(*token, held(deployment(snapshot)?.replicas), Change::Set(mark))?
            }
            Step::PointBack { token } => {
                let name = state.names.of(*token);
                let mut remaining = snapshot
                    .pods
                    .iter()
                    .filter(|pod| pod.ready && !pod.terminating && pod.secret.as_deref() == name);
                let mark = remaining.next().ok_or(Failure::Conflict)?.restarted_at.clone();
                placed(*token, rollout, mark.map_or(Change::Remove, Change::Set))?
            }
            Step::Fence => Request::Fence(deployment(snapshot)?),
            Step::Release => Request::Release(deployment(snapshot)?, rollout),
            Step::TriggerApply { .. } => {
                let token = state.system()?.current().ok_or(Failure::Conflict)?.fingerprint();
                triggered(token, false)
            }
            Step::Recreate => triggered(no_token(), false),
            Step::Redeploy => {
                let system = snapshot.system().and_then(RegistrationToken::current);
                triggered(system.map_or_else(no_token, Secret::fingerprint), true)
            }
            Step::LimitGrace { name } => state.status_grace(name, Change::Set(self.later(REACTIVATION)?))?,
            Step::Reactivate {
                token,
                by: Reactivated::Temporary,
            } => temporary("reactivated", REACTIVATED_VALUE, *token)?,
            Step::Reactivate {
                token,
                by: Reactivated::Previous(name),
            } => {
                let change = SecretChange {
                    previous: Change::Set(state.value(*token)?),
                    grace_ends_at: Change::Set(self.later(REACTIVATION)?),
                    ..SecretChange::default()
                };
                let by = object::Write::by(FIELD_MANAGER).marked(REACTIVATED, token.to_string());
                Request::ChangeOther(state.token_secret(name)?.object.clone(), change, by)
            }
        })
    }

    /// Sets this value on `system`. With storage `secret` the previous one gets a grace period that outlasts an interruption.
    fn set_system(
        &self,
        state: &State,
        token: Fingerprint,
        previous: Option<Fingerprint>,
        expiry: Option<Timestamp>,
    ) -> Result<Request, Failure> {
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
        if snapshot.storage == TokenStorage::Status {
            return Ok(Request::SetSystem(system.object.clone(), value));
        }
        let secret = state.system_secret()?;
        // A grace period without a previous token would never end.
        let protection = if previous.is_some() {
            self.protection(secret, expiry)?
        } else {
            SecretChange::default()
        };
        let is_kept = previous == secret.previous.as_ref().map(Secret::fingerprint);
        let set = previous.filter(|_| !is_kept);
        let set = set.map(|previous| state.value(previous)).transpose()?;
        let change = SecretChange {
            previous: set.map_or(Change::Keep, Change::Set),
            current: Some(value),
            ..protection
        };
        Ok(Request::ChangeSystem(secret.object.clone(), change))
    }

    /// Sets this value on another token, with its mark.
    fn set_other(
        &self,
        state: &State,
        name: &str,
        (token, previous): (Fingerprint, Option<Fingerprint>),
        mark: &OtherMark,
    ) -> Result<Request, Failure> {
        let value = state.value(token)?;
        let snapshot = state.snapshot.as_ref().ok_or(Failure::Conflict)?;
        let by = marked_as(mark)?;
        let other = snapshot.others().find(|token| token.object.name == name);
        if let Some(other) = other.filter(|_| snapshot.storage == TokenStorage::Status) {
            return Ok(Request::SetOther(other.object.clone(), value, by));
        }
        let secret = state.token_secret(name)?;
        let protection = match previous {
            Some(previous) => SecretChange {
                previous: Change::Set(state.value(previous)?),
                ..self.protection(secret, None)?
            },
            None => NO_PREVIOUS,
        };
        let change = SecretChange {
            current: Some(value),
            ..protection
        };
        Ok(Request::ChangeOther(secret.object.clone(), change, by))
    }

    /// Neither the end of the grace period nor Rancher's own rotation drops the previous token in the next days.
    fn protection(&self, secret: &TokenSecret, expiry: Option<Timestamp>) -> Result<SecretChange, Failure> {
        let far = self.later(GRACE)?;
        let expires_at = secret.expires_at.map(|at| at.max(far).max(expiry.unwrap_or(far)));
        Ok(SecretChange {
            grace_ends_at: Change::Set(far),
            expires_at: expires_at.map_or(Change::Keep, Change::Set),
            ..SecretChange::default()
        })
    }

    fn later(&self, by: SignedDuration) -> Result<Timestamp, Failure> {
        let later = self.connections.management.clock.now().checked_add(by);
        later.map_err(|error| {
            Failure::Permanent(Error::failed(format!("the time of the API server is invalid: {error}")))
        })
    }

    /// The content that Rancher itself would write. The Secret of the start gets its original content.
    fn content(
        &self,
        state: &State,
        run: &Run<Crt>,
        name: &str,
        token: Fingerprint,
    ) -> Result<CredentialsContent, Failure> {
        let snapshot = state.snapshot.as_ref().ok_or(Failure::Conflict)?;
        let value = state.value(token)?;
        let url = self.server_url(snapshot, Some(run));
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

/// A write of `system` carries the mark of the run, from which a resumed run reads its record.
fn marked(run: &Run<Crt>) -> Result<object::Write, Failure> {
    marked_as(&Mark::of(run))
}

fn marked_as(mark: &impl Serialize) -> Result<object::Write, Failure> {
    let text = serde_json::to_string(mark);
    let text = text
        .map_err(|error| Failure::Permanent(Error::failed(format!("cannot serialize the mark of the run: {error}"))))?;
    Ok(object::Write::by(FIELD_MANAGER).marked(MARK, text))
}

/// One request with its arguments.
enum Request {
    CreateToken(NewToken),
    /// The next three carry the mark of the run.
    CreateSystem(NewToken),
    SetSystem(object::Observed, Secret),
    ChangeSystem(object::Observed, SecretChange),
    /// The next two carry the mark of the run on another token.
    SetOther(object::Observed, Secret, object::Write),
    ChangeOther(object::Observed, SecretChange, object::Write),
    SetPlain(object::Observed, Secret),
    ChangeSecret(object::Observed, SecretChange),
    ChangeStatusGrace(object::Observed, Change<Timestamp>),
    DeleteToken(object::Observed),
    Trigger {
        cluster: object::Observed,
        token: Fingerprint,
        first: Option<Fingerprint>,
        redeploy: bool,
    },
    CreateCredentials(String, CredentialsContent),
    DeleteCredentials(object::Observed),
    Place(Box<agent::Deployment>, Placement),
    Fence(Box<agent::Deployment>),
    Release(Box<agent::Deployment>, RolloutSettings),
}

impl State {
    /// A value that was drawn or read.
    fn value(&self, token: Fingerprint) -> Result<Secret, Failure> {
        let read = || {
            self.snapshot
                .as_ref()
                .and_then(|snapshot| snapshot.values().remove(&token))
        };
        let value = self.values.get(&token).cloned().or_else(read);
        value.ok_or_else(|| Failure::Transient(Error::failed(format!("no object has the value of {token} any more"))))
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

    /// The Secret of `system` or of another token.
    fn token_secret(&self, name: &str) -> Result<&TokenSecret, Failure> {
        if name == SYSTEM {
            return self.system_secret();
        }
        let snapshot = self.snapshot.as_ref().ok_or(Failure::Conflict)?;
        snapshot.secret_of_other(name).ok_or(Failure::Conflict)
    }

    fn status_grace(&self, name: &str, change: Change<Timestamp>) -> Result<Request, Failure> {
        let snapshot = self.snapshot.as_ref().ok_or(Failure::Conflict)?;
        let token = snapshot.tokens.named(name).ok_or(Failure::Conflict)?;
        Ok(Request::ChangeStatusGrace(token.object.clone(), change))
    }

    /// Sets a new value on another token.
    fn renew(&self, name: &str, expiry: Option<Timestamp>) -> Result<Request, Failure> {
        let snapshot = self.snapshot.as_ref().ok_or(Failure::Conflict)?;
        let value = generate().map_err(|error| Failure::Permanent(error.on(MANAGEMENT)))?;
        let token = snapshot.others().find(|token| token.object.name == name);
        if let Some(token) = token.filter(|_| snapshot.storage == TokenStorage::Status) {
            return Ok(Request::SetPlain(token.object.clone(), value));
        }
        let secret = snapshot.secret_of_other(name).ok_or(Failure::Conflict)?;
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

/// The agent's Deployment. Without it no step changes the agent.
fn deployment(snapshot: &Snapshot) -> Result<Box<agent::Deployment>, Failure> {
    let deployment = snapshot.deployment().ok_or(Failure::Conflict)?;
    Ok(Box::new(deployment.clone()))
}

/// Rancher rotates a token with an expiry by itself, and still does not rotate one without.
fn if_there(now: Option<Timestamp>, new: Option<Timestamp>) -> Change<Timestamp> {
    now.and(new).map_or(Change::Keep, Change::Set)
}

/// The settings by which a rollout is held.
fn held(replicas: i32) -> RolloutSettings {
    RolloutSettings {
        min_ready_seconds: HOLD / replicas.max(1),
        progress_deadline_seconds: HELD_DEADLINE,
    }
}

fn on_management<T>(result: rancher::Result<T>) -> Result<(), Failure> {
    result.map(drop).map_err(|error| sent(error, MANAGEMENT))
}

fn on_downstream<T>(result: rancher::Result<T>) -> Result<(), Failure> {
    result.map(drop).map_err(|error| sent(error, DOWNSTREAM))
}

/// If the object has changed, was deleted or exists already, observe again. A step without a response may have been applied:
/// observe too.
fn sent(error: rancher::Error, side: &str) -> Failure {
    if error.is_conflict() || error.is_not_found() {
        Failure::Conflict
    } else {
        error.on(side).into()
    }
}
