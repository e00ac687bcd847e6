//! The Leases of rotations, read without holding any: what is in progress, and when the last rotation ended.

use std::collections::BTreeMap;

use client::connection::Server;
use client::error::{Doing as _, Error};
use client::request::{self, ListOptions, Resource};
use engine::journal::{Journal, Unreadable};
use engine::lock::LeaseRecord;
use engine::rotation::Rotation;
use k8s_openapi::api::coordination::v1::Lease;

use crate::rotation::target::{LeaseName, lease_selector};

const LEASE: Resource = Resource::new("Lease", "coordination.k8s.io/v1", "leases");

/// What the Lease of one target says.
#[derive(Debug)]
pub struct LeasedRotation<R: Rotation> {
    /// The Lease itself.
    pub record: LeaseRecord,
    /// The journal of a rotation in progress.
    pub journal: Option<Result<Journal<R>, Unreadable>>,
}

impl<R: Rotation> From<LeaseRecord> for LeasedRotation<R> {
    fn from(record: LeaseRecord) -> Self {
        let journal = record.journal.as_deref().map(Journal::read);
        Self { record, journal }
    }
}

impl<R: Rotation> LeasedRotation<R> {
    /// Whether a rotation was begun and is not finished.
    pub fn in_progress(&self) -> bool {
        self.journal.is_some()
    }

    /// Whether a rotation of this other kind was begun and is not finished.
    pub fn is_of(&self, kind: &str) -> bool {
        matches!(&self.journal, Some(Err(Unreadable::OtherKind(other))) if other == kind)
    }

    /// The journal, where it can be read.
    pub fn journal(&self) -> Option<&Journal<R>> {
        self.journal.as_ref()?.as_ref().ok()
    }

    /// Whether no process holds it: no holder, or one that is known to have ended.
    pub fn is_unattended(&self) -> bool {
        self.record.holder.is_none() || self.record.holder_has_exited()
    }
}

/// The Leases of all targets of one kind of rotation.
#[derive(Debug)]
pub struct LeasedRotations<R: Rotation> {
    by_lease: BTreeMap<(String, String), LeasedRotation<R>>,
    /// The caller may not list Leases.
    pub unknown: bool,
}

impl<R: Rotation> LeasedRotations<R> {
    /// Reads them in pages, in one namespace or in all. A missing permission is not an error: nothing is known then.
    pub async fn read(server: &Server, namespace: Option<&str>, side: &str) -> Result<Self, Error> {
        let options = ListOptions {
            namespace,
            labels: Some(&lease_selector::<R>()),
            ..ListOptions::default()
        };
        let leases = match request::list_all::<Lease>(&server.client, LEASE, &options).await {
            Err(error) if error.is_forbidden() => {
                return Ok(Self {
                    by_lease: BTreeMap::new(),
                    unknown: true,
                });
            }
            leases => leases.map_err(|error| error.on(side))?,
        };
        let by_lease = leases.into_iter().filter_map(|lease| {
            let record = LeaseRecord::of(&lease).into();
            Some(((lease.metadata.namespace?, lease.metadata.name?), record))
        });
        Ok(Self {
            by_lease: by_lease.collect(),
            unknown: false,
        })
    }

    /// What all of them say.
    pub fn all(&self) -> impl Iterator<Item = &LeasedRotation<R>> {
        self.by_lease.values()
    }

    /// What a Lease says; `None` without one.
    pub fn of(&self, namespace: &str, name: &str) -> Option<&LeasedRotation<R>> {
        self.by_lease.get(&(namespace.to_owned(), name.to_owned()))
    }
}

/// Reads the Lease of one target. `None`: the caller has no permission to.
pub async fn of<R: Rotation>(server: &Server, lease: &LeaseName) -> Result<Option<LeasedRotation<R>>, Error> {
    match lease.lock::<R>(server).read().await {
        Ok(record) => Ok(Some(record.into())),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        Err(error) => Err(error).doing(format!("read {lease}")),
    }
}
