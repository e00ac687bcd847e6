//! Snapshots of etcd, and which token each of them needs.
//!
//! A snapshot can be restored only with the token that it was taken under. K3s writes the hash of that token in an annotation of the
//! `ETCDSnapshotFile`: for a snapshot on demand that of the file `server/token`, so it shows from outside what that file has.

use client::request::{self, Item, ListOptions, Metadata, Resource};
use client::secret::Secret;
use http::Method;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::distribution::SupervisorKind;
use crate::error::Result;
use crate::supervisor::Supervisor;
use crate::token::{TokenHash, TokenUser};
use crate::wire::{Call, Login};

/// K3s and RKE2 have the same kind.
const SNAPSHOT_FILE: Resource = Resource::new("ETCDSnapshotFile", "k3s.cattle.io/v1", "etcdsnapshotfiles");

/// A snapshot, as an `ETCDSnapshotFile` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The name of the object.
    pub object: String,
    /// The name of the snapshot: the requested one, the node and a time.
    pub name: String,
    /// The node that took it; `s3` for one that was found in a bucket.
    pub node: String,
    /// Whether it can be restored.
    pub is_ready: bool,
    /// When it was taken.
    pub created: Option<Timestamp>,
    /// Where its file is: `file://` and a path on its node, or `s3://`.
    pub location: String,
    /// In bytes, as a quantity.
    pub size: Option<String>,
    /// Why it could not be taken.
    pub error: Option<String>,
    /// The hash of the token that it needs. `None`: not known.
    pub token_hash: Option<TokenHash>,
}

#[derive(Deserialize)]
struct RawSnapshotFile {
    metadata: Metadata,
    #[serde(default)]
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    snapshot_name: String,
    node_name: String,
    location: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    ready_to_use: bool,
    creation_time: Option<String>,
    size: Option<Quantity>,
    error: Option<RawError>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawError {
    message: String,
}

impl Item for RawSnapshotFile {
    fn unreadable(metadata: Metadata) -> Option<Self> {
        Some(Self {
            metadata,
            spec: RawSpec::default(),
            status: RawStatus::default(),
        })
    }
}

/// All snapshots that the cluster knows. Empty where there is no such kind, as without etcd.
pub async fn list(client: &kube::Client, kind: SupervisorKind) -> request::Result<Vec<SnapshotFile>> {
    let annotation = format!("etcd.{}.cattle.io/snapshot-token-hash", kind.program());
    let listed: Vec<RawSnapshotFile> = match request::list_all(client, SNAPSHOT_FILE, &ListOptions::default()).await {
        Err(error) if error.is_not_found() => Vec::new(),
        listed => listed?,
    };
    let files = listed.into_iter().map(|file| SnapshotFile {
        token_hash: file.metadata.annotation(&annotation).and_then(|hash| hash.parse().ok()),
        object: file.metadata.name,
        name: file.spec.snapshot_name,
        node: file.spec.node_name,
        location: file.spec.location,
        is_ready: file.status.ready_to_use,
        created: file.status.creation_time.and_then(|time| time.parse().ok()),
        size: file.status.size.map(|size| size.0),
        error: file.status.error.map(|error| client::redact::text(&error.message)),
    });
    Ok(files.collect())
}

/// What the server did, by the full names of snapshots.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Done {
    created: Option<Vec<String>>,
    deleted: Option<Vec<String>>,
}

impl Supervisor {
    /// Takes a snapshot of this server's etcd, and returns its full name. The server keeps only a number of snapshots whose names begin
    /// with the same text: use a name that is unique to the run.
    ///
    /// # Errors
    /// Without embedded etcd the error is a 400.
    pub async fn save_snapshot(&self, login: &Secret, name: &str) -> Result<Vec<String>> {
        let done = self.snapshot(login, "save", &[name]).await?;
        Ok(done.created.unwrap_or_default())
    }

    /// Deletes snapshots by their full names, and returns those that were deleted.
    pub async fn delete_snapshots(&self, login: &Secret, names: &[&str]) -> Result<Vec<String>> {
        let done = self.snapshot(login, "delete", names).await?;
        Ok(done.deleted.unwrap_or_default())
    }

    async fn snapshot(&self, login: &Secret, operation: &str, names: &[&str]) -> Result<Done> {
        let body = json!({ "operation": operation, "name": names });
        let call = Call {
            method: Method::POST,
            body: Some(Zeroizing::new(body.to_string().into_bytes())),
            timeout: self.options.write_timeout,
            ..Call::get(
                "/db/snapshot".to_owned(),
                Login::User(TokenUser::Server, login),
                &self.options,
            )
        };
        self.send(call).await?.json()
    }
}
