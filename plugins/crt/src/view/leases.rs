//! The Leases of rotations, read without holding any: what is under way, and when the last one ended.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use kubectl_core::connection::Server;
use kubectl_core::error::{Doing as _, Error};
use rancher::ClusterId;
use rotation::journal::{Journal, Unreadable};
use rotation::lock::{Lock, Record};

use super::{KIND, LEASE, lease_selector};
use crate::rotation::Crt;
use crate::sides::MANAGEMENT;

/// As kubectl pages.
const PAGE: u32 = 500;
/// Who writes, as the API server records it.
pub const MANAGER: &str = "kubectl-crt";

/// What the Lease of one cluster says.
#[derive(Debug, Default)]
pub struct Rotation {
    /// The Lease itself.
    pub record: Record,
    /// The journal of a rotation under way.
    pub journal: Option<Result<Journal<Crt>, Unreadable>>,
}

impl From<Record> for Rotation {
    fn from(record: Record) -> Self {
        let journal = record.journal.as_deref().map(Journal::read);
        Self { record, journal }
    }
}

impl Rotation {
    /// Whether a rotation was begun and is not finished.
    pub fn under_way(&self) -> bool {
        self.journal.is_some()
    }

    /// The journal, where it can be read.
    pub fn journal(&self) -> Option<&Journal<Crt>> {
        self.journal.as_ref()?.as_ref().ok()
    }

    /// Whether the rotation under way is to change this registration token. One whose journal cannot be read may change
    /// any.
    pub fn changes(&self, token: &str) -> bool {
        match &self.journal {
            None => false,
            Some(Err(_)) => true,
            Some(Ok(journal)) => token == rancher::token::SYSTEM || journal.notes.others.contains_key(token),
        }
    }

    /// Whether nobody is there to go on with it: no holder, or one that is known to have ended.
    pub fn is_unattended(&self) -> bool {
        self.record.holder.is_none() || self.record.holder_is_gone()
    }
}

/// The Leases of all clusters.
#[derive(Debug, Default)]
pub struct Rotations {
    by_cluster: BTreeMap<String, Rotation>,
    /// The caller may not list Leases.
    pub unknown: bool,
}

impl Rotations {
    /// Reads them, in pages. Without the right to it, nothing is known and nothing fails.
    pub async fn read(server: &Server) -> Result<Self, Error> {
        let api: Api<Lease> = Api::all(server.client.clone());
        let mut params = ListParams::default().labels(&lease_selector()).limit(PAGE);
        let mut found = Self::default();
        loop {
            let page = match api.list(&params).await {
                Err(kube::Error::Api(status)) if status.is_forbidden() => {
                    return Ok(Self {
                        unknown: true,
                        ..Self::default()
                    });
                }
                other => other.doing(format!("list Leases on {MANAGEMENT}"))?,
            };
            for lease in page.items {
                if lease.metadata.name.as_deref() == Some(LEASE)
                    && let Some(namespace) = lease.metadata.namespace.clone()
                {
                    found.by_cluster.insert(namespace, Record::of(&lease).into());
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// What the Lease of a cluster says; `None` without one.
    pub fn of(&self, cluster: &str) -> Option<&Rotation> {
        self.by_cluster.get(cluster)
    }
}

/// The lock of one cluster's rotation.
pub fn lock(server: &Server, cluster: &ClusterId) -> Lock {
    let api = Api::namespaced(server.client.clone(), cluster.as_str());
    Lock::new(api, LEASE, KIND, MANAGER, server.clock.clone())
}

/// Reads the Lease of one cluster. `None`: the caller may not.
pub async fn of(server: &Server, cluster: &ClusterId) -> Result<Option<Rotation>, Error> {
    match lock(server, cluster).read().await {
        Ok(record) => Ok(Some(record.into())),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        Err(error) => Err(error).doing(format!("read Lease {cluster}/{LEASE} on {MANAGEMENT}")),
    }
}
