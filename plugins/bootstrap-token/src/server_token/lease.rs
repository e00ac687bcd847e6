//! The Lease of the server token: whether a rotation is in progress, and how the last one ended.

use cli::rotation::LeaseName;
use client::cluster_identity::SYSTEM_NAMESPACE;
use client::connection::Server;
use client::error::{Doing as _, Error};
use client::sanitize;
use engine::lock::{LeaseRecord, Lock};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use serde::Serialize;

use crate::cluster::MANAGER;
use crate::report::target::CLUSTER;

/// The kind of the rotation, and the name of its Lease: a cluster has one server token.
const KIND: &str = "server-token";

/// The Lease of the rotation.
pub(crate) fn name() -> LeaseName {
    LeaseName {
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: KIND.to_owned(),
        side: CLUSTER,
    }
}

/// What the document says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RotationState {
    rotation: Option<Held>,
    /// There is no permission to read Leases.
    rotation_unknown: bool,
    last_rotated: Option<Timestamp>,
    last_result: Option<String>,
}

/// A rotation in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    /// The holder of the lock, and how long ago it was renewed.
    holder: Option<String>,
    renewed: Option<Timestamp>,
    /// No process holds it, or the one that did is known to have ended.
    unattended: bool,
}

impl RotationState {
    pub(crate) async fn read(server: &Server) -> Result<Self, Error> {
        let lease = name();
        let api = Api::namespaced(server.client.clone(), &lease.namespace);
        let lock = Lock::new(api, &lease.name, KIND, MANAGER, server.clock.clone());
        match lock.read().await {
            Ok(record) => Ok(Self::of(Some(&record), server.clock.now())),
            Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Self::of(None, server.clock.now())),
            Err(error) => Err(error).doing(format!("read {lease}")),
        }
    }

    /// By the Lease. `None`: it may not be read.
    fn of(record: Option<&LeaseRecord>, now: Timestamp) -> Self {
        let in_progress = record.filter(|record| record.journal.is_some());
        Self {
            rotation: in_progress.map(|record| Held {
                holder: record.describe_holder(now),
                renewed: record.renewed.filter(|_| record.holder.is_some()),
                unattended: record.holder.is_none() || record.holder_has_exited(),
            }),
            rotation_unknown: record.is_none(),
            last_rotated: record.and_then(|record| record.last_run),
            last_result: record.and_then(|record| record.last_result.clone()),
        }
    }

    /// The line of the page.
    pub(crate) fn line(&self, now: Timestamp) -> String {
        let last = || match (self.last_rotated, &self.last_result) {
            (None, _) => "<none>".to_owned(),
            (at, result) => {
                let result = result.as_deref().unwrap_or("ended");
                format!("{} ({} ago)", sanitize::cell(result), cli::age::since(now, at))
            }
        };
        match &self.rotation {
            None if self.rotation_unknown => "Rotation in progress: unknown (no permission to read Leases)".to_owned(),
            None => format!("Rotation in progress: none. Last rotation: {}", last()),
            Some(Held { holder: None, .. }) => "Rotation in progress: held by <none>".to_owned(),
            Some(Held {
                holder: Some(holder),
                unattended,
                ..
            }) => {
                let ended = if *unattended { ", has ended" } else { "" };
                format!("Rotation in progress: held by {}{ended}", sanitize::cell(holder))
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// No rotation is in progress, and none was.
    pub(crate) fn idle() -> RotationState {
        RotationState::of(Some(&LeaseRecord::default()), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_line_says_what_the_lease_shows() {
        let now = Timestamp::from_second(100).unwrap();
        let line = |record: Option<&LeaseRecord>| RotationState::of(record, now).line(now);
        let mut record = LeaseRecord::default();
        assert_eq!(
            line(None),
            "Rotation in progress: unknown (no permission to read Leases)"
        );
        assert_eq!(line(Some(&record)), "Rotation in progress: none. Last rotation: <none>");
        record.last_run = Timestamp::from_second(40).ok();
        record.last_result = Some("rotated".to_owned());
        assert_eq!(
            line(Some(&record)),
            "Rotation in progress: none. Last rotation: rotated (60s ago)"
        );
        record.journal = Some("{}".to_owned());
        assert_eq!(line(Some(&record)), "Rotation in progress: held by <none>");
        record.holder = Some("laptop".to_owned());
        record.renewed = Timestamp::from_second(96).ok();
        assert_eq!(
            line(Some(&record)),
            "Rotation in progress: held by laptop, renewed 4s ago"
        );
    }
}
