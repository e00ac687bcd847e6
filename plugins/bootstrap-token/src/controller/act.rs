//! The single writes. Each carries the identity and version of the object that was read last, and asks the fence first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bootstrap::judge::{Group, Usage};
use bootstrap::{NewToken, Token, TokenSecret, tokens};
use client::error::{Doing as _, Error, Kind};
use client::request;
use client::secret::{Fingerprint, Secret};
use engine::lock::Fence;
use engine::protocol::{Run, Trouble};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::snapshot::{AtTarget, MARK, RECORD};
use super::survey::Recipe;
use super::{State, TokenActor, of_file};
use crate::delivery::{content, file, secret};
use crate::rotation::write::{Which, Write};
use crate::rotation::{BootstrapToken, leg, record};
use crate::side;

/// The annotation that makes a change of a Secret an event for the signer.
const TOUCHED: &str = "kubectl-rotation.github.io/touched";

/// One request, with everything that it needs.
enum Request {
    Nothing,
    Create(Box<NewToken>),
    Mend(Box<TokenSecret>, Box<NewToken>),
    Patch(Box<TokenSecret>, Value),
    Delete(Box<TokenSecret>),
    Secret(secret::Key, Box<secret::Seen>, Option<Secret>),
    File(PathBuf, file::Seen, Secret),
}

impl TokenActor<'_> {
    pub(super) async fn write(&self, write: &Write, run: &Run<BootstrapToken>, fence: &Fence) -> Result<(), Trouble> {
        self.hold_the_file()?;
        let mark = leg(run).mark(&super::key(run));
        let request = self.prepare(write, run, &mark)?;
        if !fence.is_open() {
            return Err(Trouble::LockLost);
        }
        let (client, by) = (self.side.client(), side::write(false));
        match request {
            Request::Nothing => Ok(()),
            Request::Create(new) => of_token(tokens::create(client, &new, &by).await),
            Request::Mend(seen, new) => of_token(tokens::mend(client, &seen, &new, &by).await),
            Request::Patch(seen, change) => of_token(tokens::patch(client, &seen, change, &by).await),
            Request::Delete(seen) => of_token(tokens::delete_as_seen(client, &seen, &by).await),
            Request::Secret(key, seen, content) => {
                let at = (MARK, mark.as_str());
                of_target(key.write(client, &seen, content.as_ref(), at, false).await)
            }
            Request::File(path, seen, content) => self.replace(&path, &seen, &content),
        }
    }

    /// Where the target is a file: its lock must be ours before anything is written, whatever it is, and the file as it was
    /// seen. From then on no other process can change what this one decides by.
    fn hold_the_file(&self) -> Result<(), Trouble> {
        let mut state = self.state();
        let State { snapshot, lock, .. } = &mut *state;
        let Some(AtTarget::File(path, seen)) = snapshot.as_ref().map(|snapshot| &snapshot.target) else {
            return Ok(());
        };
        if !lock.as_ref().is_some_and(file::Locked::is_present) {
            *lock = match file::Locked::take(path) {
                Ok(Some(taken)) => Some(taken),
                Ok(None) => {
                    let message = format!("{} is locked by another process", path.display());
                    return Err(Trouble::NotYet(Error::new(Kind::Unavailable, message)));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Trouble::Changed),
                Err(error) => return Err(Trouble::Fatal(of_file(path, &error))),
            };
        }
        match lock.as_ref().map(|lock| lock.is(seen)) {
            Some(Ok(true)) => Ok(()),
            Some(Err(error)) => Err(Trouble::Fatal(of_file(path, &error))),
            _ => Err(Trouble::Changed),
        }
    }

    fn replace(&self, path: &std::path::Path, seen: &file::Seen, content: &Secret) -> Result<(), Trouble> {
        let mut state = self.state();
        let lock = state.lock.as_mut().ok_or(Trouble::LockLost)?;
        match lock.replace(seen, content) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Trouble::Changed),
            Err(error) => Err(Trouble::Fatal(of_file(path, &error))),
        }
    }

    /// Finds the objects and values that a write needs, in what was read last.
    fn prepare(&self, write: &Write, run: &Run<BootstrapToken>, mark: &str) -> Result<Request, Trouble> {
        let state = self.state();
        let snapshot = state.snapshot.as_ref().ok_or(Trouble::Changed)?;
        let secret = |which| match which {
            Which::Old => snapshot.old.clone(),
            Which::New => snapshot.new.clone(),
        };
        let seen = |which| secret(which).map(Box::new).ok_or(Trouble::Changed);
        let new_of = |token| {
            let recipe = state.recipe.as_ref().ok_or_else(no_recipe)?;
            let record = serde_json::to_string(&record(&run.notes))
                .map_err(|error| Trouble::Fatal(Error::failed(error.to_string())))?;
            let annotations = [(MARK, mark.to_owned()), (RECORD, record)];
            self.new_of(
                recipe,
                token,
                annotations.map(|(key, value)| (key.to_owned(), value)).into(),
            )
        };
        Ok(match write {
            Write::Keep { .. } | Write::Leave { .. } => Request::Nothing,
            Write::Create { .. } => {
                let drawn = run.notes.new.as_ref().ok_or(Trouble::Changed)?;
                let token = state.known.get(&drawn.value).cloned().ok_or_else(no_value)?;
                Request::Create(Box::new(new_of(token)?))
            }
            Write::Mend { .. } => {
                let seen = seen(Which::New)?;
                if seen.deleting {
                    let message = format!("bootstrap token {} is being deleted", seen.title());
                    return Err(Trouble::NotYet(Error::new(Kind::Unavailable, message)));
                }
                // Its value stays.
                let token = seen.token.clone().ok_or(Trouble::Changed)?;
                let new = new_of(token)?;
                Request::Mend(seen, Box::new(new))
            }
            Write::Touch { .. } => {
                let now = self.side.server.clock.now().to_string();
                let annotations = json!({ "metadata": { "annotations": { TOUCHED: now } } });
                Request::Patch(seen(Which::New)?, annotations)
            }
            Write::GuardToken { .. } => {
                let annotations = json!({ "metadata": { "annotations": { MARK: mark } } });
                Request::Patch(seen(Which::New)?, annotations)
            }
            Write::Clear { .. } => Request::Delete(seen(Which::New)?),
            Write::Delete { which, .. } => Request::Delete(seen(*which)?),
            Write::Deliver { value, .. } => deliver(&state, &snapshot.target, *value)?,
            Write::GuardTarget { .. } => match &snapshot.target {
                AtTarget::Secret(key, seen) => Request::Secret(key.clone(), seen.clone(), None),
                _ => return Err(Trouble::Changed),
            },
        })
    }

    /// What would be made of the token that was seen last, with this value: for a check by the server.
    ///
    /// # Errors
    /// Nothing was seen yet, or it cannot be copied.
    pub fn proposal(&self, token: Token) -> Result<NewToken, Error> {
        let state = self.state();
        let recipe = state.recipe.as_ref().ok_or_else(no_recipe);
        let new = recipe.and_then(|recipe| self.new_of(recipe, token, BTreeMap::new()));
        new.map_err(|trouble| Error::failed(trouble.to_string()))
    }

    /// Lets the server check a write to the target. `None`: there is no server to ask, or nothing was seen there.
    pub async fn check_target(&self) -> Option<Result<(), Error>> {
        let seen = match &self.state().snapshot.as_ref()?.target {
            AtTarget::Secret(key, seen) => Some((key.clone(), seen.clone())),
            _ => None,
        };
        let (key, seen) = seen?;
        let content = Some(&seen.content);
        let checked = key
            .write(self.side.client(), &seen, content, (MARK, "check"), true)
            .await;
        Some(checked.doing(format!("change Secret {}/{}", key.namespace, key.name)))
    }

    fn end(&self, recipe: &Recipe) -> Result<Option<Timestamp>, Trouble> {
        let end = |ttl: Duration| {
            let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
            let end = self.side.server.clock.now().checked_add(ttl);
            end.map_err(|_| Trouble::Fatal(Error::failed("the new token would end beyond the end of time")))
        };
        recipe.ttl.map(end).transpose()
    }

    fn new_of(
        &self,
        recipe: &Recipe,
        token: Token,
        annotations: BTreeMap<String, String>,
    ) -> Result<NewToken, Trouble> {
        let groups: Result<Vec<Group>, _> = recipe.groups.iter().map(|group| group.parse()).collect();
        let groups =
            groups.map_err(|flaw| Trouble::Fatal(Error::failed(format!("a group of the old token {flaw}"))))?;
        Ok(NewToken {
            token,
            usages: usages(recipe),
            groups,
            expiration: self.end(recipe)?,
            description: recipe.description.clone(),
            labels: recipe.labels.clone(),
            annotations,
        })
    }
}

fn usages(recipe: &Recipe) -> Vec<Usage> {
    recipe.usages.iter().filter_map(|usage| usage.parse().ok()).collect()
}

fn deliver(state: &State, target: &AtTarget, value: Fingerprint) -> Result<Request, Trouble> {
    let new = state.known.get(&value).ok_or_else(no_value)?;
    let (content, old) = target.content().zip(target.token()).ok_or(Trouble::Changed)?;
    let content = content::with(content, &old, new);
    let content = content.map_err(|error| Trouble::Fatal(Error::failed(format!("could not deliver: {error}"))))?;
    Ok(match target {
        AtTarget::Secret(key, seen) => Request::Secret(key.clone(), seen.clone(), Some(content)),
        AtTarget::File(path, seen) => Request::File(path.clone(), seen.clone(), content),
        AtTarget::Nothing | AtTarget::Unreachable | AtTarget::Missing(_) => return Err(Trouble::Changed),
    })
}

fn no_recipe() -> Trouble {
    Trouble::Fatal(Error::failed(
        "the old token is gone, and no Secret says any more what a new one is made of",
    ))
}

fn no_value() -> Trouble {
    Trouble::NotYet(Error::failed("the value of the new token is not known here"))
}

/// Changed, gone or there already: observe again. A write whose answer is lost may have been carried out: observe too.
fn of_token<T>(answer: bootstrap::Result<T>) -> Result<(), Trouble> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.is_conflict() || error.is_not_found() || error.is_already_exists() => Err(Trouble::Changed),
        Err(error) => Err(Error::from(error).into()),
    }
}

fn of_target(answer: request::Result<()>) -> Result<(), Trouble> {
    match answer {
        Err(error) if error.is_conflict() || error.is_not_found() => Err(Trouble::Changed),
        other => Ok(other.map_err(Error::from)?),
    }
}
