//! The backup Secret of a run: its record, each of its tokens sealed with each other one, and what was removed from configurations.
//!
//! Who has one of the tokens can read the others and resume the run. Who has none can read fingerprints only.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::cluster_identity::SYSTEM_NAMESPACE;
use client::error::Error;
use client::request::{self, Metadata, Observed as Version, SECRET};
use client::secret::Fingerprint;
use engine::controller::Failure;
use node_access::TokenPlace;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use supervisor::sealed::{OpenError, SealContext, SealedToken};

use super::tokens::{Tokens, value_of};
use crate::cluster;
use crate::server_token::rotation::record::Record;

/// The label of the backup Secrets. Its value is the run.
const LABEL: &str = "kubectl-rotation.github.io/server-token";

/// The name of the backup Secret of a run.
pub(crate) fn name(run: &str) -> String {
    format!("server-token-rotation-{run}")
}

/// The backup Secret as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub(crate) version: Version,
    pub(crate) content: Content,
}

/// What it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) record: Record,
    pub(crate) sealed: Vec<SealedFor>,
    /// By the names of Nodes: the places from which the run has removed a token, as they are since.
    pub(crate) removed: BTreeMap<String, Vec<TokenPlace>>,
}

/// One token, sealed with another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedFor {
    token: Fingerprint,
    with: Fingerprint,
    value: SealedToken,
}

#[derive(Deserialize)]
struct RawSecret {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl Content {
    pub(crate) fn new(record: Record) -> Self {
        Self {
            record,
            sealed: Vec::new(),
            removed: BTreeMap::new(),
        }
    }

    /// Opens each token that a known one opens. The derivation of a key takes some tenths of a second of processor time.
    pub(crate) fn open(&self, tokens: &mut Tokens, context: SealContext<'_>) -> Result<(), OpenError> {
        loop {
            let next = self.sealed.iter().find_map(|sealed| {
                let with = tokens.get(sealed.with).filter(|_| !tokens.knows(sealed.token))?;
                Some((sealed, with.password().clone()))
            });
            let Some((sealed, with)) = next else {
                return Ok(());
            };
            let opened = sealed.value.open(&with, context)?;
            let value = value_of(&opened).ok_or(OpenError::Malformed)?;
            if tokens.insert(value) != sealed.token {
                return Err(OpenError::Malformed);
            }
        }
    }

    /// The same without blocking the process. Returns the tokens with those that were opened.
    pub(crate) async fn opened(self, mut tokens: Tokens, cluster: String, run: String) -> Result<Tokens, Error> {
        let secret = name(&run);
        let opening = tokio::task::spawn_blocking(move || {
            let (cluster, run) = (cluster.as_str(), run.as_str());
            self.open(&mut tokens, SealContext { cluster, run }).map(|()| tokens)
        });
        let opened = opening.await.map_err(|error| Error::failed(error.to_string()))?;
        opened.map_err(|error| {
            Error::failed(format!(
                "cannot open the tokens in Secret {SYSTEM_NAMESPACE}/{secret}: {error}"
            ))
        })
    }

    /// The same as [`seal`](Self::seal) without blocking the process.
    pub(crate) async fn sealed(mut self, tokens: Tokens, cluster: String, run: String) -> Result<Self, Failure> {
        let sealing = tokio::task::spawn_blocking(move || {
            let (cluster, run) = (cluster.as_str(), run.as_str());
            self.seal(&tokens, SealContext { cluster, run }).map(|()| self)
        });
        sealing
            .await
            .map_err(|error| Failure::Permanent(Error::failed(error.to_string())))?
    }

    /// Seals each token of the record with each other one, where that is missing.
    pub(crate) fn seal(&mut self, tokens: &Tokens, context: SealContext<'_>) -> Result<(), Failure> {
        let of_run: Vec<Fingerprint> = tokens_of(&self.record).collect();
        for (token, with) in pairs(&of_run) {
            if self.sealed.iter().any(|one| (one.token, one.with) == (token, with)) {
                continue;
            }
            let (value, key) = (tokens.require(token)?, tokens.require(with)?);
            let value = SealedToken::seal(value.password(), key.password(), context)
                .map_err(|error| Failure::Permanent(error.into()))?;
            self.sealed.push(SealedFor { token, with, value });
        }
        Ok(())
    }

    fn of_data(data: &BTreeMap<String, String>) -> Option<Self> {
        fn field<T: serde::de::DeserializeOwned>(data: &BTreeMap<String, String>, key: &str) -> Option<T> {
            serde_json::from_slice(&STANDARD.decode(data.get(key)?).ok()?).ok()
        }
        Some(Self {
            record: field(data, "record")?,
            sealed: field(data, "tokens")?,
            removed: field(data, "removed")?,
        })
    }

    fn to_data(&self) -> Value {
        let field = |value: Value| STANDARD.encode(value.to_string());
        json!({
            "record": field(json!(self.record)),
            "tokens": field(json!(self.sealed)),
            "removed": field(json!(self.removed)),
        })
    }
}

/// The tokens of a record.
pub(crate) fn tokens_of(record: &Record) -> impl Iterator<Item = Fingerprint> {
    std::iter::once(record.old).chain(record.new.iter().copied())
}

fn pairs(of: &[Fingerprint]) -> impl Iterator<Item = (Fingerprint, Fingerprint)> {
    let others = |one: Fingerprint| {
        of.iter()
            .filter(move |other| **other != one)
            .map(move |other| (one, *other))
    };
    of.iter().flat_map(move |one| others(*one))
}

/// Reads it. `None`: there is none.
pub(crate) async fn read(client: &kube::Client, run: &str) -> Result<Option<Backup>, Error> {
    let found: Option<RawSecret> = request::get(client, SECRET, Some(SYSTEM_NAMESPACE), &name(run)).await?;
    found.map(|secret| of_raw(&secret, run)).transpose()
}

fn of_raw(secret: &RawSecret, run: &str) -> Result<Backup, Error> {
    let content = Content::of_data(&secret.data);
    Ok(Backup {
        version: secret.metadata.observed(),
        content: content
            .ok_or_else(|| Error::failed(format!("backup Secret {SYSTEM_NAMESPACE}/{} is malformed", name(run))))?,
    })
}

/// Creates or changes it, and reads it back.
pub(crate) async fn write(
    client: &kube::Client,
    run: &str,
    before: Option<&Backup>,
    content: &Content,
) -> Result<Backup, Failure> {
    let by = cluster::write(false);
    let written: request::Result<RawSecret> = if let Some(backup) = before {
        let change = json!({ "data": content.to_data() });
        request::patch(client, SECRET, &backup.version, request::Merge::Json, change, &by).await
    } else {
        let body = body(run, content);
        request::create(client, SECRET, Some(SYSTEM_NAMESPACE), &name(run), &body, &by).await
    };
    written.map_err(of_request)?;
    let read = read(client, run).await?;
    read.filter(|backup| backup.content == *content)
        .ok_or(Failure::Conflict)
}

/// Asks the API server whether it would create it.
pub(crate) async fn check(client: &kube::Client, record: Record) -> Result<(), Error> {
    let body = body("check", &Content::new(record));
    let by = cluster::write(true);
    let created: RawSecret =
        request::create(client, SECRET, Some(SYSTEM_NAMESPACE), &name("check"), &body, &by).await?;
    drop(created);
    Ok(())
}

fn body(run: &str, content: &Content) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name(run), "namespace": SYSTEM_NAMESPACE, "labels": { LABEL: run } },
        "type": "Opaque",
        "data": content.to_data(),
    })
}

pub(crate) async fn delete(client: &kube::Client, backup: &Backup) -> Result<(), Failure> {
    let deleted = request::delete(client, SECRET, &backup.version, &cluster::write(false)).await;
    deleted.map_err(of_request)
}

/// If the object has changed, is gone or exists already, observe again.
fn of_request(error: request::Error) -> Failure {
    if error.is_conflict() || error.is_not_found() {
        Failure::Conflict
    } else {
        Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use client::secret::Secret;
    use supervisor::TokenValue;

    use super::*;

    const CONTEXT: SealContext<'_> = SealContext {
        cluster: "41c0",
        run: "bcdfg",
    };

    fn tokens(count: usize) -> (Tokens, Vec<Fingerprint>) {
        let mut tokens = Tokens::default();
        let of_run = (0..count)
            .map(|_| tokens.insert(TokenValue::generate().unwrap()))
            .collect();
        (tokens, of_run)
    }

    fn record(of_run: &[Fingerprint]) -> Record {
        Record {
            old: of_run[0],
            new: of_run[1..].to_vec(),
            is_given: false,
            is_ended: false,
            round: None,
        }
    }

    #[test]
    fn who_has_one_of_the_tokens_has_all() {
        let (all, of_run) = tokens(2);
        let mut content = Content::new(record(&of_run));
        content.seal(&all, CONTEXT).unwrap();
        for known in &of_run {
            let mut tokens = Tokens::default();
            tokens.insert(all.get(*known).unwrap().clone());
            content.open(&mut tokens, CONTEXT).unwrap();
            assert!(of_run.iter().all(|one| tokens.get(*one) == all.get(*one)));
        }
        let (mut other, _) = self::tokens(1);
        content.open(&mut other, CONTEXT).unwrap();
        assert!(!of_run.iter().any(|one| other.knows(*one)));
    }

    #[test]
    fn a_token_of_another_run_or_cluster_is_not_opened() {
        let (all, of_run) = tokens(2);
        let mut content = Content::new(record(&of_run));
        content.seal(&all, CONTEXT).unwrap();
        let mut known = Tokens::default();
        known.insert(all.get(of_run[0]).unwrap().clone());
        let other = SealContext {
            run: "other",
            ..CONTEXT
        };
        assert_eq!(content.open(&mut known, other), Err(OpenError::WrongToken));
    }

    #[test]
    fn a_further_token_is_added_and_nothing_is_dropped() {
        let (all, of_run) = tokens(3);
        let mut content = Content::new(record(&of_run[..2]));
        content.seal(&all, CONTEXT).unwrap();
        let before = content.sealed.clone();
        content.record = record(&of_run);
        content.seal(&all, CONTEXT).unwrap();
        assert_eq!((content.sealed.len(), &content.sealed[..2]), (6, &before[..]));
        let without = Content::new(record(&of_run)).seal(&tokens(1).0, CONTEXT);
        assert!(matches!(without, Err(Failure::Permanent(_))), "{without:?}");
    }

    #[test]
    fn it_is_read_as_it_was_written_and_contains_no_token() {
        let (all, of_run) = tokens(2);
        let mut content = Content::new(record(&of_run));
        content.seal(&all, CONTEXT).unwrap();
        let data: BTreeMap<String, String> = serde_json::from_value(content.to_data()).unwrap();
        assert_eq!(Content::of_data(&data), Some(content));
        for value in data.values() {
            let text = String::from_utf8(STANDARD.decode(value).unwrap()).unwrap();
            for token in &of_run {
                let password: &Secret = all.get(*token).unwrap().password();
                assert!(!text.contains(password.expose()), "{text}");
            }
        }
        for key in data.keys() {
            let mut cut = data.clone();
            cut.insert(key.clone(), STANDARD.encode("?"));
            assert_eq!(Content::of_data(&cut), None, "{key}");
        }
    }
}
