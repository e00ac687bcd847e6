//! Applies single steps. Each is conditional on the version of the object that was read last, and checks the fence first.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bootstrap::{NewToken, Token, TokenSecret, tokens};
use client::error::{Error, Kind};
use client::secret::{Fingerprint, Secret};
use engine::controller::{Failure, ServerCheck};
use engine::direction::ANNOTATION;
use engine::lock::Fence;
use serde_json::json;

use super::abstraction::{DeliverySnapshot, ORIGIN, run_key};
use super::{Run, State, TokenController, of_file};
use crate::cluster;
use crate::delivery::{content, file, secret};
use crate::rotation::record::Origin;
use crate::rotation::step::{Step, Which};

/// The annotation whose change makes the signer look at a Secret again.
const TOUCHED: &str = "kubectl-rotation.github.io/touched";

enum Request {
    Nothing,
    Create(Box<NewToken>),
    Repair(Box<TokenSecret>, Box<NewToken>),
    Annotate(Box<TokenSecret>, (&'static str, String)),
    Delete(Box<TokenSecret>),
    Secret(secret::SecretKey, Box<secret::Revision>, Option<Secret>),
    File(PathBuf, file::Revision, Secret),
}

impl TokenController<'_> {
    pub(super) async fn send(&self, step: &Step, run: &Run, fence: &Fence) -> Result<(), Failure> {
        self.hold_file()?;
        let mark = run.direction.mark(&run_key(run));
        let request = self.prepare(step, run, &mark)?;
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        let (client, by) = (self.cluster.client(), cluster::write(false));
        match request {
            Request::Nothing => Ok(()),
            Request::Create(new) => of_token(tokens::create(client, &new, &by).await),
            Request::Repair(version, new) => of_token(tokens::repair(client, &version, &new, &by).await),
            Request::Annotate(version, (key, value)) => {
                let change = json!({ "metadata": { "annotations": { key: value } } });
                of_token(tokens::patch(client, &version, change, &by).await)
            }
            Request::Delete(version) => of_token(tokens::delete_version(client, &version, &by).await),
            Request::Secret(key, version, content) => {
                let mark = (ANNOTATION, mark.as_str());
                match key.write(client, &version, content.as_ref(), mark, false).await {
                    Err(error) if error.is_conflict() || error.is_not_found() => Err(Failure::Conflict),
                    other => Ok(other.map_err(Error::from)?),
                }
            }
            Request::File(path, version, content) => self.replace(&path, &version, &content),
        }
    }

    /// If the delivery is a file, it must be locked and unchanged before any step is sent. From then on, no other process can change
    /// it.
    fn hold_file(&self) -> Result<(), Failure> {
        let mut state = self.state();
        let State { snapshot, lock, .. } = &mut *state;
        let Some(DeliverySnapshot::File(path, version)) = snapshot.as_ref().map(|snapshot| &snapshot.delivery) else {
            return Ok(());
        };
        if !lock.as_ref().is_some_and(file::Locked::is_present) {
            *lock = match file::Locked::take(path) {
                Ok(Some(taken)) => Some(taken),
                Ok(None) => {
                    let message = format!("{} is locked by another process", path.display());
                    return Err(Failure::Transient(Error::new(Kind::Unavailable, message)));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Failure::Conflict),
                Err(error) => return Err(Failure::Permanent(of_file(path, &error))),
            };
        }
        match lock.as_ref().map(|lock| lock.is(version)) {
            Some(Ok(true)) => Ok(()),
            Some(Err(error)) => Err(Failure::Permanent(of_file(path, &error))),
            _ => Err(Failure::Conflict),
        }
    }

    fn replace(&self, path: &std::path::Path, version: &file::Revision, content: &Secret) -> Result<(), Failure> {
        let mut state = self.state();
        let lock = state.lock.as_mut().ok_or(Failure::LockLost)?;
        match lock.replace(version, content) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Conflict),
            Err(error) => Err(Failure::Permanent(of_file(path, &error))),
        }
    }

    /// Collects the objects and values that a step needs from the last observation.
    fn prepare(&self, step: &Step, run: &Run, mark: &str) -> Result<Request, Failure> {
        let state = self.state();
        let snapshot = state.snapshot.as_ref().ok_or(Failure::Conflict)?;
        let version = |which| {
            let secret = match which {
                Which::Old => &snapshot.old,
                Which::New => &snapshot.new,
            };
            secret.clone().map(Box::new).ok_or(Failure::Conflict)
        };
        let new_token = |token| {
            let template = state.template.as_ref();
            let template = template.ok_or_else(|| Failure::Permanent(no_template()))?;
            let origin = serde_json::to_string(&Origin::from(&run.record))
                .map_err(|error| Failure::Permanent(Error::failed(error.to_string())))?;
            let annotations = [(ANNOTATION, mark.to_owned()), (ORIGIN, origin)];
            let annotations = annotations.map(|(key, value)| (key.to_owned(), value));
            let new = template.token(token, annotations.into(), self.cluster.server.clock.now());
            // Not a usage error, as in `create`.
            new.map(Box::new)
                .map_err(|error| Failure::Permanent(Error::failed(error.message)))
        };
        Ok(match step {
            Step::Abandon { .. } => Request::Nothing,
            Step::Create { .. } => {
                let drawn = run.record.new.as_ref().ok_or(Failure::Conflict)?;
                let token = state.memory.tokens.get(&drawn.value).cloned().ok_or_else(no_value)?;
                Request::Create(new_token(token)?)
            }
            Step::Repair { .. } => {
                let version = version(Which::New)?;
                if version.deleting {
                    let message = format!("bootstrap token {} is being deleted", version.title());
                    return Err(Failure::Transient(Error::new(Kind::Unavailable, message)));
                }
                let token = version.token.clone().ok_or(Failure::Conflict)?;
                Request::Repair(version, new_token(token)?)
            }
            Step::TriggerSigner { .. } => {
                let now = self.cluster.server.clock.now().to_string();
                Request::Annotate(version(Which::New)?, (TOUCHED, now))
            }
            Step::FenceToken { .. } => Request::Annotate(version(Which::New)?, (ANNOTATION, mark.to_owned())),
            Step::DeleteEmpty { .. } => Request::Delete(version(Which::New)?),
            Step::Revoke { which, .. } => Request::Delete(version(*which)?),
            Step::Deliver { value, .. } => deliver(&state, &snapshot.delivery, *value)?,
            Step::FenceDelivery { .. } => match &snapshot.delivery {
                DeliverySnapshot::Secret(key, version) => Request::Secret(key.clone(), version.clone(), None),
                _ => return Err(Failure::Conflict),
            },
        })
    }

    /// Submits a step as a server-side dry run, if it does not depend on others. A value that is drawn for it is dropped.
    pub(super) async fn check(&self, step: &Step) -> ServerCheck {
        let (client, by) = (self.cluster.client(), cluster::write(true));
        let checked = async {
            match step {
                Step::Create { .. } => {
                    let template = self.state().template.clone().ok_or_else(no_template)?;
                    let now = self.cluster.server.clock.now();
                    let new = template.token(Token::generate()?, BTreeMap::new(), now)?;
                    tokens::create(client, &new, &by).await?;
                }
                Step::Deliver { .. } => {
                    let version = match self.state().snapshot.as_ref().map(|snapshot| &snapshot.delivery) {
                        Some(DeliverySnapshot::Secret(key, version)) => Some((key.clone(), version.clone())),
                        _ => None,
                    };
                    let Some((key, version)) = version else {
                        return Ok(ServerCheck::NotChecked("it is written to a file"));
                    };
                    let mark = (ANNOTATION, "check");
                    key.write(client, &version, Some(&version.content), mark, true).await?;
                }
                Step::Revoke { which: Which::Old, .. } => {
                    let old = tokens::require(client, &self.id).await?;
                    tokens::delete_version(client, &old, &by).await?;
                }
                _ => return Ok(ServerCheck::NotChecked("it depends on the steps before it")),
            }
            Ok(ServerCheck::Accepted)
        };
        checked.await.unwrap_or_else(ServerCheck::Rejected)
    }
}

fn deliver(state: &State, delivery: &DeliverySnapshot, value: Fingerprint) -> Result<Request, Failure> {
    let new = state.memory.tokens.get(&value).ok_or_else(no_value)?;
    let (content, old) = delivery.content().zip(delivery.token()).ok_or(Failure::Conflict)?;
    let content = content::with(content, &old, new).ok_or_else(|| {
        Failure::Permanent(Error::failed(
            "cannot deliver: the token is written in a form that cannot be replaced",
        ))
    })?;
    Ok(match delivery {
        DeliverySnapshot::Secret(key, version) => Request::Secret(key.clone(), version.clone(), Some(content)),
        DeliverySnapshot::File(path, version) => Request::File(path.clone(), version.clone(), content),
        DeliverySnapshot::None | DeliverySnapshot::OtherHost | DeliverySnapshot::Missing(_) => {
            return Err(Failure::Conflict);
        }
    })
}

fn no_template() -> Error {
    Error::failed("the old token is gone, so the usages and groups of a new one are unknown")
}

fn no_value() -> Failure {
    Failure::Transient(Error::failed("the value of the new token is unknown to this process"))
}

/// If the object has changed, is gone or exists already, observe again. The same for a lost response, since the write may have been
/// applied.
fn of_token<T>(result: bootstrap::Result<T>) -> Result<(), Failure> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_conflict() || error.is_not_found() || error.is_already_exists() => {
            Err(Failure::Conflict)
        }
        Err(error) => Err(Error::from(error).into()),
    }
}
