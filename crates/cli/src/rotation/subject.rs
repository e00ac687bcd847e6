//! What a rotation is about: the product that it belongs to, and the one thing whose credential changes.

use client::connection::Server;
use client::secret::Fingerprint;
use engine::lock::{KIND_LABEL, Lock};
use engine::plan::Plan;
use engine::protocol::Protocol;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::{Map, Value};

use crate::rotation::again::Again;

/// A protocol, in words.
pub trait Product: Protocol {
    /// The plugin, as it is typed after `kubectl`; also the label of its Leases.
    const KIND: &'static str;
    /// Who writes, as the API server records it.
    const MANAGER: &'static str;
    /// Its deadlines, and what they are called.
    const TIMERS: &'static [(Self::Timer, &'static str)];

    /// The credential that a run begins with, and the one that it shall end on.
    fn ends(notes: &Self::Notes) -> Ends;

    /// Where a rotation that is not begun yet starts from, in half a sentence.
    fn start(view: &Self::View, notes: &Self::Notes) -> String;

    /// What stops working with each value that a plan retires, a line each.
    fn deaths(plan: &Plan<Self>) -> Vec<String>;

    /// The label selector of its Leases.
    fn lease_selector() -> String {
        format!("{KIND_LABEL}={}", Self::KIND)
    }
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The credential at the start.
    pub old: Fingerprint,
    /// The new one, once it is drawn.
    pub new: Option<Fingerprint>,
}

/// The thing whose credential changes.
#[derive(Clone, Debug)]
pub struct Subject {
    /// As kubectl prints an object: `cluster.management.cattle.io/c-x7k2p`.
    pub object: String,
    /// Its name in the documents.
    pub name: String,
    /// In a sentence: `cluster oslo (c-x7k2p)`.
    pub called: String,
    /// What the documents say of it besides, under a key of its own.
    pub about: Map<String, Value>,
    /// What is true again once a rotation was undone: `its agent runs with the old token as before`.
    pub restored: &'static str,
    /// The commands about it.
    pub again: Again,
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
    pub fn lock<P: Product>(&self, server: &Server) -> Lock {
        let api: Api<Lease> = Api::namespaced(server.client.clone(), &self.namespace);
        Lock::new(api, &self.name, P::KIND, P::MANAGER, server.clock.clone())
    }
}
