//! The target of a rotation: the one thing whose credential changes, in words, and where its Lease is.

use client::connection::Server;
use engine::lock::{KIND_LABEL, Lock};
use engine::rotation::{Action, Rotation};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::{Map, Value};

use crate::rotation::commands::Commands;

/// The thing whose credential changes.
#[derive(Clone, Debug)]
pub struct Target {
    /// As kubectl prints an object: `cluster.management.cattle.io/c-x7k2p`.
    pub object: String,
    /// Its name in the documents.
    pub name: String,
    /// In a sentence: `cluster oslo (c-x7k2p)`.
    pub display: String,
    /// What else the documents say about it, under a key of its own.
    pub details: Map<String, Value>,
    /// What the command does to it.
    pub action: Action,
    /// What is true again once a rotation was rolled back: `its agent runs with the old token as before`.
    pub restored: &'static str,
    /// The commands about it.
    pub commands: Commands,
    /// Where its Lease is.
    pub lease: LeaseName,
}

/// A Lease, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The cluster that it is in, in words: `the management cluster`.
    pub side: &'static str,
}

impl std::fmt::Display for LeaseName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease {}/{} on {}", self.namespace, self.name, self.side)
    }
}

impl LeaseName {
    /// The lock that it is.
    pub fn lock<R: Rotation>(&self, server: &Server) -> Lock {
        let api: Api<Lease> = Api::namespaced(server.client.clone(), &self.namespace);
        Lock::new(api, &self.name, R::KIND, R::FIELD_MANAGER, server.clock.clone())
    }

    /// Deletes it where its target is gone for good, unless a rotation needs it. Without permission to delete it, it stays. Returns
    /// whether it was deleted.
    pub async fn delete_unused<R: Rotation>(&self, server: &Server) -> bool {
        let deleted = self.lock::<R>(server).delete_unused().await;
        deleted.unwrap_or_else(|error| {
            tracing::debug!(%error, "{self} was not deleted");
            false
        })
    }
}

/// The label selector of the Leases of a kind of rotation, and of those that have the same.
pub(crate) fn lease_selector<R: Rotation>() -> String {
    format!("{KIND_LABEL} in ({})", R::KINDS.join(","))
}
