//! The half of the rotation of a badge that does I/O: two Secrets, each written with the version that was read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::access::Needed;
use client::connection::Server;
use client::error::Error;
use client::secret::{Fingerprint, Secret};
use engine::controller::{Controller, Failure, ServerCheck, Summary};
use engine::lock::Fence;
use engine::plan::Plan;
use engine::rotation::{Rotation as _, Timer};
use engine::run::{Draw, Run};
use k8s_openapi::api::core::v1::{ConfigMap, Secret as Object};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::badge::{Badge, Observed, Step};
use crate::fixture::{CALLS, CLOSED, CONSUMER, ISSUER, MARK, issued, worn};

pub(crate) struct BadgeController {
    secrets: Api<Object>,
    calls: Api<ConfigMap>,
    server: Server,
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
            server: server.clone(),
            proof,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object that is to be changed, and how.
    fn prepare(&self, step: &Step, run: &Run<Badge>) -> Option<(Object, Value)> {
        let state = self.state();
        let (issuer, consumer) = (state.issuer.clone()?, state.consumer.clone()?);
        Some(match step {
            Step::Issue => {
                let new = run.record.new?;
                let value = state.drawn.get(&new)?.expose();
                (issuer, json!({ "stringData": { new.to_string(): value } }))
            }
            Step::Hand { badge } => {
                let value = issuer.data?.remove(&badge.to_string())?;
                let annotations = json!({ MARK: run.record.mark });
                let change = json!({ "metadata": { "annotations": annotations }, "data": { "badge": value } });
                (consumer, change)
            }
            Step::Revoke { badge } => (issuer, json!({ "data": { badge.to_string(): null } })),
        })
    }
}

impl Controller for BadgeController {
    type Rotation = Badge;

    async fn observe(&self, _: Option<&Run<Badge>>) -> Result<Observed, Failure> {
        let read = futures::try_join!(
            self.secrets.get(ISSUER),
            self.secrets.get(CONSUMER),
            self.calls.get(CALLS)
        );
        let (issuer, consumer, calls) = read.map_err(failure)?;
        let entry = |key: &str| calls.data.as_ref().and_then(|data| data.get(key));
        let seen = Observed {
            issued: issued(&issuer),
            accepted: entry("accepted")
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
            handed: worn(&consumer),
            called: entry("called").and_then(|text| serde_json::from_str(text).ok()),
            closed: issuer.annotations().contains_key(CLOSED),
        };
        let mut state = self.state();
        state.issuer = Some(issuer);
        state.consumer = Some(consumer);
        Ok(seen)
    }

    fn needs(&self) -> Vec<Needed<'_>> {
        Vec::new()
    }

    fn draw(&self) -> Box<dyn Draw + Send + '_> {
        Box::new(self)
    }

    async fn apply(&self, step: &Step, run: &Run<Badge>, fence: &Fence) -> Result<(), Failure> {
        let (object, mut change) = self.prepare(step, run).ok_or(Failure::Conflict)?;
        change["metadata"]["uid"] = json!(object.metadata.uid);
        change["metadata"]["resourceVersion"] = json!(object.metadata.resource_version);
        if !fence.is_open() {
            return Err(Failure::LockLost);
        }
        let params = PatchParams::apply(Badge::FIELD_MANAGER);
        let sent = self
            .secrets
            .patch(&object.name_any(), &params, &Patch::Merge(change))
            .await;
        sent.map(drop).map_err(failure)
    }

    fn lasts(&self, _: Timer) -> Duration {
        self.proof
    }

    fn server(&self) -> &Server {
        &self.server
    }

    fn resumable_by(&self) -> String {
        "any admin".to_owned()
    }

    async fn dry_run(&self, _: &Step) -> ServerCheck {
        ServerCheck::NotChecked("no test asks for it")
    }

    async fn summary(&self, _: &Observed, _: Option<&Plan<Badge>>) -> Summary {
        Summary::default()
    }
}

fn failure(error: kube::Error) -> Failure {
    match &error {
        kube::Error::Api(status) if status.code == 409 => Failure::Conflict,
        _ => Error::from(error).into(),
    }
}

impl Draw for &BadgeController {
    fn credential(&mut self) -> Fingerprint {
        let value = Secret::new(uuid());
        let fingerprint = value.fingerprint();
        self.state().drawn.insert(fingerprint, value);
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
