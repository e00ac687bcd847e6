//! The half of the small rotation that touches the world: two Secrets, each written with the version that was read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::clock::ServerClock;
use client::connection::Server;
use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::lock::Fence;
use engine::protocol::{Actor, Draw, Run, Trouble};
use k8s_openapi::api::core::v1::{ConfigMap, Secret as Object};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::badge::{Badge, Timer, View, Write};
use crate::fixture::{CALLS, CLOSED, CONSUMER, ISSUER, MARK, issued, worn};

pub(crate) const MANAGER: &str = "engine-story";

pub(crate) struct BadgeController {
    secrets: Api<Object>,
    calls: Api<ConfigMap>,
    clock: ServerClock,
    proof: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    issuer: Option<Object>,
    consumer: Option<Object>,
    drawn: BTreeMap<Fingerprint, Secret>,
}

impl BadgeController {
    pub(crate) fn new(server: &Server, namespace: &str, proof: Duration) -> Self {
        Self {
            secrets: Api::namespaced(server.client.clone(), namespace),
            calls: Api::namespaced(server.client.clone(), namespace),
            clock: server.clock.clone(),
            proof,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object that is to be changed, and how.
    fn prepare(&self, write: &Write, run: &Run<Badge>) -> Option<(Object, Value)> {
        let state = self.state();
        let (issuer, consumer) = (state.issuer.clone()?, state.consumer.clone()?);
        Some(match write {
            Write::Issue => {
                let new = run.notes.new?;
                let value = state.drawn.get(&new)?.expose();
                (issuer, json!({ "stringData": { new.to_string(): value } }))
            }
            Write::Hand { badge } => {
                let value = issuer.data?.remove(&badge.to_string())?;
                let annotations = json!({ MARK: run.notes.mark });
                let change = json!({ "metadata": { "annotations": annotations }, "data": { "badge": value } });
                (consumer, change)
            }
            Write::Revoke { badge } => (issuer, json!({ "data": { badge.to_string(): null } })),
        })
    }
}

impl Actor for BadgeController {
    type Protocol = Badge;

    async fn observe(&self, _: Option<&Run<Badge>>) -> Result<View, Trouble> {
        let read = futures::try_join!(
            self.secrets.get(ISSUER),
            self.secrets.get(CONSUMER),
            self.calls.get(CALLS)
        );
        let (issuer, consumer, calls) = read.map_err(trouble)?;
        let said = |key: &str| calls.data.as_ref().and_then(|data| data.get(key));
        let view = View {
            issued: issued(&issuer),
            accepted: said("accepted")
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
            handed: worn(&consumer),
            called: said("called").and_then(|text| serde_json::from_str(text).ok()),
            closed: issuer.annotations().contains_key(CLOSED),
        };
        let mut state = self.state();
        state.issuer = Some(issuer);
        state.consumer = Some(consumer);
        Ok(view)
    }

    fn draw(&self) -> Box<dyn Draw + '_> {
        Box::new(FromTheSystem(self.state()))
    }

    async fn act(&self, write: &Write, run: &Run<Badge>, fence: &Fence) -> Result<(), Trouble> {
        let (object, mut change) = self.prepare(write, run).ok_or(Trouble::Changed)?;
        change["metadata"]["uid"] = json!(object.metadata.uid);
        change["metadata"]["resourceVersion"] = json!(object.metadata.resource_version);
        if !fence.is_open() {
            return Err(Trouble::LockLost);
        }
        let params = PatchParams::apply(MANAGER);
        let sent = self
            .secrets
            .patch(&object.name_any(), &params, &Patch::Merge(change))
            .await;
        sent.map(drop).map_err(trouble)
    }

    fn lasts(&self, Timer::Proof: Timer) -> Duration {
        self.proof
    }

    fn clock(&self) -> ServerClock {
        self.clock.clone()
    }
}

fn trouble(error: kube::Error) -> Trouble {
    if matches!(&error, kube::Error::Api(status) if status.code == 409) {
        return Trouble::Changed;
    }
    let error = Error::from(error);
    if error.kind.is_transient() {
        Trouble::NotYet(error)
    } else {
        Trouble::Fatal(error)
    }
}

struct FromTheSystem<'a>(MutexGuard<'a, State>);

impl Draw for FromTheSystem<'_> {
    fn credential(&mut self) -> Fingerprint {
        let value = Secret::new(uuid());
        let fingerprint = value.fingerprint();
        self.0.drawn.insert(fingerprint, value);
        fingerprint
    }

    fn mark(&mut self) -> String {
        uuid()
    }
}

fn uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
