//! The backup Secret of a run: its record, its tokens, each sealed with another one, and what was changed in configurations.
//!
//! Who has the token that another one is sealed with can read that one, and resume the run. Who has none can read fingerprints only.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::cluster_identity::SYSTEM_NAMESPACE;
use client::error::Error;
use client::request::{self, Metadata, Observed as Version, SECRET};
use client::secret::Fingerprint;
use engine::controller::Failure;
use node_access::TokenPlace;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use supervisor::sealed::{OpenError, SealContext, SealedToken};

use super::tokens::{Tokens, value_of};
use crate::cluster;
use crate::server_token::rotation::record::Record;

/// What the backup Secret of a rotation holds.
pub(crate) trait BackedUp: Clone + PartialEq + Serialize + DeserializeOwned {
    /// The kind of the rotation. Its Secrets are named `KIND-rotation-RUN`, and have a label of that kind.
    const KIND: &'static str;

    /// Each token whose value is in the Secret, and the one that it is sealed with.
    fn sealed(&self) -> Vec<(Fingerprint, Fingerprint)>;
}

/// Each token is sealed with each other one.
impl BackedUp for Record {
    const KIND: &'static str = "server-token";

    fn sealed(&self) -> Vec<(Fingerprint, Fingerprint)> {
        let all: Vec<Fingerprint> = tokens_of(self).collect();
        let others = |one: Fingerprint| {
            let others = all.iter().filter(move |other| **other != one);
            others.map(move |other| (one, *other))
        };
        all.iter().flat_map(|one| others(*one)).collect()
    }
}

/// The name of the backup Secret of a run.
fn name<R: BackedUp>(run: &str) -> String {
    format!("{}-rotation-{run}", R::KIND)
}

/// The backup Secret as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Backup<R = Record> {
    pub(crate) version: Version,
    pub(crate) content: Content<R>,
}

/// What it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content<R = Record> {
    pub(crate) record: R,
    pub(crate) sealed: Vec<SealedFor>,
    /// By the names of Nodes: the places from which the run has removed a token, or where it has written one, as they are since.
    pub(crate) removed: BTreeMap<String, Vec<TokenPlace>>,
    /// By the names of Nodes, where a run depends on it: when the process of each server had started, in seconds since 1970.
    pub(crate) starts: BTreeMap<String, i64>,
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

impl<R: BackedUp> Content<R> {
    pub(crate) fn new(record: R) -> Self {
        Self {
            record,
            sealed: Vec::new(),
            removed: BTreeMap::new(),
            starts: BTreeMap::new(),
        }
    }

    /// The tokens, with those that a known one opens. It does not block the process.
    pub(crate) async fn opened(self, tokens: Tokens, cluster: String, run: String) -> Result<Tokens, Error> {
        opened(self.sealed, tokens, cluster, run, name::<R>).await
    }

    /// With each token of the record. It does not block the process.
    pub(crate) async fn sealed(mut self, tokens: Tokens, cluster: String, run: String) -> Result<Self, Failure> {
        let pairs = self.record.sealed();
        self.sealed = sealed(self.sealed, pairs, tokens, cluster, run).await?;
        Ok(self)
    }

    fn of_data(data: &BTreeMap<String, String>) -> Option<Self> {
        fn field<T: DeserializeOwned>(data: &BTreeMap<String, String>, key: &str) -> Option<T> {
            serde_json::from_slice(&STANDARD.decode(data.get(key)?).ok()?).ok()
        }
        Some(Self {
            record: field(data, "record")?,
            sealed: field(data, "tokens")?,
            removed: field(data, "removed")?,
            starts: field(data, "starts").unwrap_or_default(),
        })
    }

    fn to_data(&self) -> Value {
        let field = |value: Value| STANDARD.encode(value.to_string());
        let mut data = json!({
            "record": field(json!(self.record)),
            "tokens": field(json!(self.sealed)),
            "removed": field(json!(self.removed)),
        });
        if !self.starts.is_empty() {
            data["starts"] = json!(field(json!(self.starts)));
        }
        data
    }

    fn body(&self, run: &str) -> Value {
        let label = format!("kubectl-rotation.github.io/{}", R::KIND);
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name::<R>(run), "namespace": SYSTEM_NAMESPACE, "labels": { label: run } },
            "type": "Opaque",
            "data": self.to_data(),
        })
    }
}

/// The derivation of a key takes some tenths of a second of processor time.
async fn opened(
    sealed: Vec<SealedFor>,
    mut tokens: Tokens,
    cluster: String,
    run: String,
    name: fn(&str) -> String,
) -> Result<Tokens, Error> {
    let secret = name(&run);
    let opening = tokio::task::spawn_blocking(move || {
        let (cluster, run) = (cluster.as_str(), run.as_str());
        open(&sealed, &mut tokens, SealContext { cluster, run }).map(|()| tokens)
    });
    let opened = opening.await.map_err(|error| Error::failed(error.to_string()))?;
    opened.map_err(|error| {
        Error::failed(format!(
            "cannot open the tokens in Secret {SYSTEM_NAMESPACE}/{secret}: {error}"
        ))
    })
}

/// Opens each token that a known one opens.
fn open(all: &[SealedFor], tokens: &mut Tokens, context: SealContext<'_>) -> Result<(), OpenError> {
    loop {
        let next = all.iter().find_map(|sealed| {
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

async fn sealed(
    mut all: Vec<SealedFor>,
    pairs: Vec<(Fingerprint, Fingerprint)>,
    tokens: Tokens,
    cluster: String,
    run: String,
) -> Result<Vec<SealedFor>, Failure> {
    let sealing = tokio::task::spawn_blocking(move || {
        let (cluster, run) = (cluster.as_str(), run.as_str());
        seal(&mut all, &pairs, &tokens, SealContext { cluster, run }).map(|()| all)
    });
    sealing
        .await
        .map_err(|error| Failure::Permanent(Error::failed(error.to_string())))?
}

/// Seals each token, where that is missing.
fn seal(
    all: &mut Vec<SealedFor>,
    pairs: &[(Fingerprint, Fingerprint)],
    tokens: &Tokens,
    context: SealContext<'_>,
) -> Result<(), Failure> {
    for (token, with) in pairs.iter().copied() {
        if all.iter().any(|one| (one.token, one.with) == (token, with)) {
            continue;
        }
        let (value, key) = (tokens.require(token)?, tokens.require(with)?);
        let value = SealedToken::seal(value.password(), key.password(), context)
            .map_err(|error| Failure::Permanent(error.into()))?;
        all.push(SealedFor { token, with, value });
    }
    Ok(())
}

/// The tokens of a record of the server token.
pub(crate) fn tokens_of(record: &Record) -> impl Iterator<Item = Fingerprint> {
    std::iter::once(record.old).chain(record.new.iter().copied())
}

/// Reads it. `None`: there is none.
pub(crate) async fn read<R: BackedUp>(client: &kube::Client, run: &str) -> Result<Option<Backup<R>>, Error> {
    let name = name::<R>(run);
    let found: Option<RawSecret> = request::get(client, SECRET, Some(SYSTEM_NAMESPACE), &name).await?;
    let backup = |secret: RawSecret| {
        let malformed = || Error::failed(format!("backup Secret {SYSTEM_NAMESPACE}/{name} is malformed"));
        Ok(Backup {
            version: secret.metadata.observed(),
            content: Content::of_data(&secret.data).ok_or_else(malformed)?,
        })
    };
    found.map(backup).transpose()
}

/// Creates or changes it, and reads it back.
pub(crate) async fn write<R: BackedUp>(
    client: &kube::Client,
    run: &str,
    before: Option<&Backup<R>>,
    content: &Content<R>,
) -> Result<Backup<R>, Failure> {
    let version = before.map(|backup| &backup.version);
    send(client, &name::<R>(run), version, content.body(run)).await?;
    let read = read(client, run).await?;
    read.filter(|backup: &Backup<R>| backup.content == *content)
        .ok_or(Failure::Conflict)
}

/// Only its data is changed.
async fn send(client: &kube::Client, name: &str, version: Option<&Version>, body: Value) -> Result<(), Failure> {
    let by = cluster::write(false);
    let written: request::Result<RawSecret> = match version {
        Some(version) => {
            let change = json!({ "data": body["data"] });
            request::patch(client, SECRET, version, request::Merge::Json, change, &by).await
        }
        None => request::create(client, SECRET, Some(SYSTEM_NAMESPACE), name, &body, &by).await,
    };
    written.map(drop).map_err(of_request)
}

/// Asks the API server whether it would create it.
pub(crate) async fn check<R: BackedUp>(client: &kube::Client, record: R) -> Result<(), Error> {
    let (name, body) = (name::<R>("check"), Content::new(record).body("check"));
    let by = cluster::write(true);
    let created: RawSecret = request::create(client, SECRET, Some(SYSTEM_NAMESPACE), &name, &body, &by).await?;
    drop(created);
    Ok(())
}

pub(crate) async fn delete(client: &kube::Client, version: &Version) -> Result<(), Failure> {
    let deleted = request::delete(client, SECRET, version, &cluster::write(false)).await;
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
        seal(&mut content.sealed, &content.record.sealed(), &all, CONTEXT).unwrap();
        for known in &of_run {
            let mut tokens = Tokens::default();
            tokens.insert(all.get(*known).unwrap().clone());
            open(&content.sealed, &mut tokens, CONTEXT).unwrap();
            assert!(of_run.iter().all(|one| tokens.get(*one) == all.get(*one)));
        }
        let (mut other, _) = self::tokens(1);
        open(&content.sealed, &mut other, CONTEXT).unwrap();
        assert!(!of_run.iter().any(|one| other.knows(*one)));
    }

    #[test]
    fn a_token_of_another_run_or_cluster_is_not_opened() {
        let (all, of_run) = tokens(2);
        let mut content = Content::new(record(&of_run));
        seal(&mut content.sealed, &content.record.sealed(), &all, CONTEXT).unwrap();
        let mut known = Tokens::default();
        known.insert(all.get(of_run[0]).unwrap().clone());
        let other = SealContext {
            run: "other",
            ..CONTEXT
        };
        assert_eq!(open(&content.sealed, &mut known, other), Err(OpenError::WrongToken));
    }

    #[test]
    fn a_further_token_is_added_and_nothing_is_dropped() {
        let (all, of_run) = tokens(3);
        let mut content = Content::new(record(&of_run[..2]));
        seal(&mut content.sealed, &content.record.sealed(), &all, CONTEXT).unwrap();
        let before = content.sealed.clone();
        content.record = record(&of_run);
        seal(&mut content.sealed, &content.record.sealed(), &all, CONTEXT).unwrap();
        assert_eq!((content.sealed.len(), &content.sealed[..2]), (6, &before[..]));
        let without = seal(&mut Vec::new(), &content.record.sealed(), &tokens(1).0, CONTEXT);
        assert!(matches!(without, Err(Failure::Permanent(_))), "{without:?}");
    }

    #[test]
    fn it_is_read_as_it_was_written_and_contains_no_token() {
        let (all, of_run) = tokens(2);
        let mut content = Content::new(record(&of_run));
        seal(&mut content.sealed, &content.record.sealed(), &all, CONTEXT).unwrap();
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
            assert_eq!(Content::<Record>::of_data(&cut), None, "{key}");
        }
    }
}
