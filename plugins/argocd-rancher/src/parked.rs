//! The Secret in which a rotation keeps the values of its two tokens until it has ended: Rancher tells a value once, and the
//! way back needs the old one.
//!
//! It stands beside the cluster Secret and holds nothing but what that one holds too, now or before. There is one for each
//! cluster Secret, so that one which was left over is found again.

use std::collections::BTreeMap;

use client::request::{self, Merge, Metadata, Observed, SECRET, Write};
use client::secret::Secret;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::mark::TOOL;
use crate::sides::Client;

/// The run that it belongs to.
const RUN: &str = "kubectl-rotation.github.io/run";
/// The user of Rancher who began the run.
const USER: &str = "kubectl-rotation.github.io/token-user";
/// Whether the old token is to stay valid, `true` or `false`.
const KEEP_OLD: &str = "kubectl-rotation.github.io/keep-old";
/// Whose it is.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Which value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// That of the token which is rotated.
    Old,
    /// That of the new one.
    New,
}

impl Slot {
    fn key(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }
}

/// Where it is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    client: Client,
    namespace: String,
    name: String,
}

/// The run that the values are kept for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// Its name.
    pub id: String,
    /// The user of Rancher who began it. Empty: not recorded.
    pub user: String,
    /// The old token is to stay valid; so it is where that is not recorded.
    pub keep_old: bool,
}

impl Run {
    fn read(annotations: Option<BTreeMap<String, String>>) -> Self {
        let mut all = annotations.unwrap_or_default();
        Self {
            id: all.remove(RUN).unwrap_or_default(),
            user: all.remove(USER).unwrap_or_default(),
            keep_old: all.get(KEEP_OLD).is_none_or(|text| text != "false"),
        }
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let keep_old = self.keep_old.to_string();
        let all = [(RUN, &self.id), (USER, &self.user), (KEEP_OLD, &keep_old)];
        all.map(|(key, value)| (key.to_owned(), value.clone())).into()
    }
}

/// What was seen there.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    object: Observed,
    /// The run that wrote it.
    pub run: Run,
    /// The value of the old token.
    pub old: Option<Secret>,
    /// That of the new one.
    pub new: Option<Secret>,
}

impl Place {
    /// That of the cluster Secret `namespace/secret`.
    pub(crate) fn of(client: &kube::Client, namespace: &str, secret: &str) -> Self {
        Self {
            client: Client(client.clone()),
            namespace: namespace.to_owned(),
            name: format!("{secret}-rotation"),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Reads it. `None`: there is none, or not for long. A Secret of that name that is not ours is none, and in the way of
    /// [`Self::put`].
    pub(crate) async fn read(&self) -> request::Result<Option<Seen>> {
        #[derive(Deserialize)]
        struct RawSecret {
            metadata: Metadata,
            data: Option<BTreeMap<String, ByteString>>,
        }
        let found: Option<RawSecret> = request::get(&self.client.0, SECRET, Some(&self.namespace), &self.name).await?;
        Ok(found.and_then(|found| {
            let metadata = found.metadata;
            let ours = metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(MANAGED_BY))
                .is_some_and(|by| by == TOOL);
            if metadata.deletion_timestamp.is_some() || !ours {
                return None;
            }
            let data = found.data.unwrap_or_default();
            let value = |slot: Slot| {
                let text = String::from_utf8(data.get(slot.key())?.0.clone()).ok()?;
                Some(Secret::new(text)).filter(|value| !value.is_empty())
            };
            Some(Seen {
                object: metadata.observed(),
                run: Run::read(metadata.annotations),
                old: value(Slot::Old),
                new: value(Slot::New),
            })
        }))
    }

    /// Keeps a value for a run, if the Secret is still as it was seen. What another run has left there is replaced.
    pub(crate) async fn put(
        &self,
        seen: Option<&Seen>,
        run: &Run,
        slot: Slot,
        value: &Secret,
        dry_run: bool,
    ) -> request::Result<()> {
        let data = BTreeMap::from([(slot.key(), ByteString(value.expose().as_bytes().to_vec()))]);
        let mut write = Write::by(TOOL).dry_run(dry_run);
        let client = &self.client.0;
        let Some(seen) = seen else {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "data": data,
                "metadata": {
                    "name": self.name,
                    "labels": { MANAGED_BY: TOOL },
                    "annotations": run.annotations(),
                },
            });
            let namespace = Some(self.namespace.as_str());
            request::create::<IgnoredAny>(client, SECRET, namespace, &self.name, &secret, &write).await?;
            return Ok(());
        };
        write.annotations = run.annotations();
        let mut change = json!({ "data": data });
        if seen.run.id != run.id {
            let other = if slot == Slot::Old { Slot::New } else { Slot::Old };
            change["data"][other.key()] = json!(null);
        }
        request::patch::<IgnoredAny>(client, SECRET, &seen.object, Merge::Json, change, &write).await?;
        Ok(())
    }

    /// Deletes it, if it is still as it was seen. One that is gone already is no error.
    pub(crate) async fn delete(&self, seen: &Seen) -> request::Result<()> {
        request::delete(&self.client.0, SECRET, &seen.object, &Write::by(TOOL)).await
    }
}
