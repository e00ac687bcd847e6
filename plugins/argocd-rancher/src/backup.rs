//! The backup Secret: it holds the values of both tokens until a rotation has ended. Rancher returns a value only once, and a rollback
//! needs the old one.
//!
//! It is in the namespace of the cluster Secret, and there is one for each, so that a leftover is found again.

use std::collections::BTreeMap;

use client::request::{self, Item, ListOptions, Merge, Metadata, Observed, SECRET, Write};
use client::secret::Secret;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::mark::{self, TOOL};
use crate::rotation::step::Which;

/// The run that it belongs to.
const RUN: &str = "kubectl-rotation.github.io/run";
/// The Rancher user who began the run.
const USER: &str = "kubectl-rotation.github.io/token-user";
/// Whether the old token is to stay valid, `true` or `false`.
const KEEP_OLD: &str = "kubectl-rotation.github.io/keep-old";
/// The label with the name of this program.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The end of its name, after the name of the cluster Secret.
const SUFFIX: &str = "-rotation";

fn key(which: Which) -> &'static str {
    match which {
        Which::Old => "old",
        Which::New => "new",
    }
}

/// The backup Secret of a cluster Secret.
pub(crate) struct BackupSecret {
    client: kube::Client,
    namespace: String,
    name: String,
}

/// The run that the backup belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackupMark {
    pub run: String,
    /// The Rancher user who began it. Empty: not recorded.
    pub user: String,
    /// The old token is to stay valid. That is the default where it is not recorded.
    pub keep_old: bool,
}

impl BackupMark {
    fn read(annotations: Option<BTreeMap<String, String>>) -> Self {
        let mut all = annotations.unwrap_or_default();
        Self {
            run: all.remove(RUN).unwrap_or_default(),
            user: all.remove(USER).unwrap_or_default(),
            keep_old: all.get(KEEP_OLD).is_none_or(|text| text != "false"),
        }
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let keep_old = self.keep_old.to_string();
        let all = [(RUN, &self.run), (USER, &self.user), (KEEP_OLD, &keep_old)];
        all.map(|(key, value)| (key.to_owned(), value.clone())).into()
    }
}

/// A backup Secret, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct StoredBackup {
    /// The version that was read.
    pub object: Observed,
    /// The run that wrote it.
    pub mark: BackupMark,
    /// The value of the old token.
    pub old: Option<Secret>,
    /// The value of the new token.
    pub new: Option<Secret>,
}

impl StoredBackup {
    /// The cluster Secret that it belongs to.
    pub(crate) fn secret(&self) -> Option<&str> {
        self.object.name.strip_suffix(SUFFIX)
    }

    /// Deletes it, if it has not changed since it was read. It is no error if it does not exist any more.
    pub(crate) async fn delete(&self, client: &kube::Client) -> request::Result<()> {
        request::delete(client, SECRET, &self.object, &Write::by(TOOL)).await
    }

    /// The names of the tokens in it.
    pub(crate) fn token_names(&self) -> Vec<String> {
        [&self.old, &self.new]
            .into_iter()
            .flatten()
            .map(mark::token_name)
            .collect()
    }
}

/// All backup Secrets of a namespace.
pub(crate) async fn list(client: &kube::Client, namespace: &str) -> request::Result<Vec<StoredBackup>> {
    let selector = format!("{MANAGED_BY}={TOOL}");
    let wanted = ListOptions {
        namespace: Some(namespace),
        labels: Some(&selector),
        ..ListOptions::default()
    };
    let found: Vec<RawSecret> = request::list_all(client, SECRET, &wanted).await?;
    Ok(found.into_iter().filter_map(RawSecret::read).collect())
}

#[derive(Deserialize)]
struct RawSecret {
    metadata: Metadata,
    data: Option<BTreeMap<String, ByteString>>,
}

impl Item for RawSecret {}

impl RawSecret {
    /// `None`: it is being deleted, or is not ours.
    fn read(self) -> Option<StoredBackup> {
        let metadata = self.metadata;
        let manager = metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        if metadata.deletion_timestamp.is_some() || manager.is_none_or(|manager| manager != TOOL) {
            return None;
        }
        let data = self.data.unwrap_or_default();
        let value = |which: Which| {
            let text = String::from_utf8(data.get(key(which))?.0.clone()).ok()?;
            Some(Secret::new(text)).filter(|value| !value.is_empty())
        };
        Some(StoredBackup {
            object: metadata.observed(),
            mark: BackupMark::read(metadata.annotations),
            old: value(Which::Old),
            new: value(Which::New),
        })
    }
}

impl BackupSecret {
    /// The backup of the cluster Secret `namespace/secret`.
    pub(crate) fn of(client: &kube::Client, namespace: &str, secret: &str) -> Self {
        Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            name: format!("{secret}-rotation"),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Reads it. `None`: it does not exist, is being deleted, or is not ours. In the last case [`Self::put`] fails.
    pub(crate) async fn read(&self) -> request::Result<Option<StoredBackup>> {
        let found: Option<RawSecret> = request::get(&self.client, SECRET, Some(&self.namespace), &self.name).await?;
        Ok(found.and_then(RawSecret::read))
    }

    /// Stores a value for a run, if the Secret has not changed since it was read. The values of another run are replaced.
    pub(crate) async fn put(
        &self,
        read: Option<&StoredBackup>,
        mark: &BackupMark,
        which: Which,
        value: &Secret,
        dry_run: bool,
    ) -> request::Result<()> {
        let data = BTreeMap::from([(key(which), ByteString(value.expose().as_bytes().to_vec()))]);
        let mut write = Write::by(TOOL).dry_run(dry_run);
        let client = &self.client;
        let Some(read) = read else {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "data": data,
                "metadata": {
                    "name": self.name,
                    "labels": { MANAGED_BY: TOOL },
                    "annotations": mark.annotations(),
                },
            });
            let namespace = Some(self.namespace.as_str());
            request::create::<IgnoredAny>(client, SECRET, namespace, &self.name, &secret, &write).await?;
            return Ok(());
        };
        write.annotations = mark.annotations();
        let mut change = json!({ "data": data });
        if read.mark.run != mark.run {
            let other = if which == Which::Old { Which::New } else { Which::Old };
            change["data"][key(other)] = json!(null);
        }
        request::patch::<IgnoredAny>(client, SECRET, &read.object, Merge::Json, change, &write).await?;
        Ok(())
    }
}
