//! Another writer of an object. It applies a saved state again and again, like a GitOps tool, a cron job or a static
//! manifest.
//!
//! ```no_run
//! # async fn example(client: kube::Client, saved: k8s_openapi::api::core::v1::Secret) -> anyhow::Result<()> {
//! use std::time::Duration;
//! use test_cluster::AnotherWriter;
//! let writer = AnotherWriter::of(client, &saved)?
//!     .manager("kustomize-controller")
//!     .every(Duration::from_secs(10))
//!     .times(3)
//!     .start();
//! // … the command under test …
//! writer.restored(1).await?; // waits until it has undone a change
//! let times = writer.stop().await?;
//! # let _ = times; Ok(()) }
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::{StreamExt as _, pin_mut};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long [`Writing::wrote`] and [`Writing::restored`] wait.
const PATIENCE: Duration = Duration::from_mins(4);
/// Annotations that the control plane writes. No manifest has them.
const NOT_IN_A_MANIFEST: [&str; 2] = [
    "deployment.kubernetes.io/revision",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// How the saved state is written.
#[derive(Clone, Copy)]
enum How {
    /// Server-side apply that takes fields over from others.
    Apply,
    /// A merge patch with the saved fields.
    ReplaceData,
}

/// When the saved state is written.
#[derive(Clone, Copy)]
enum When {
    Every(Duration),
    /// Whenever the object differs from it.
    Differs,
}

/// A writer that is not started yet. By default its field manager is `kustomize-controller`, and it applies every ten
/// seconds without end.
pub struct AnotherWriter {
    api: Api<DynamicObject>,
    object: DynamicObject,
    manager: String,
    how: How,
    when: When,
    times: u32,
}

impl AnotherWriter {
    /// A writer of the current state of this typed or dynamic object. Fields that the server fills in are left out.
    pub fn of(client: Client, object: &impl Serialize) -> Result<Self> {
        let mut object = serde_json::to_value(object)?;
        let kind = object["kind"].as_str().context("the object has no kind")?;
        let (group, version) = match object["apiVersion"].as_str().context("the object has no apiVersion")? {
            version if !version.contains('/') => ("", version),
            both => both.split_once('/').context("a group without a version")?,
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let metadata = &object["metadata"];
        let mut annotations = metadata["annotations"].clone();
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.retain(|name, _| !NOT_IN_A_MANIFEST.contains(&name.as_str()));
        }
        let mut kept = json!({"name": metadata["name"]});
        for (name, value) in [
            ("namespace", &metadata["namespace"]),
            ("labels", &metadata["labels"]),
            ("annotations", &annotations),
        ] {
            if !value.is_null() {
                kept[name] = value.clone();
            }
        }
        object["metadata"] = kept;
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        let object: DynamicObject = serde_json::from_value(object)?;
        let api = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        Ok(Self {
            api,
            object,
            manager: "kustomize-controller".to_owned(),
            how: How::Apply,
            when: When::Every(Duration::from_secs(10)),
            times: u32::MAX,
        })
    }

    /// Sets the field manager.
    #[must_use]
    pub fn manager(mut self, manager: &str) -> Self {
        manager.clone_into(&mut self.manager);
        self
    }

    /// Writes a merge patch with the saved fields instead of a server-side apply. It keeps other fields, and does not
    /// create a deleted object.
    #[must_use]
    pub fn replace_data(mut self) -> Self {
        self.how = How::ReplaceData;
        self
    }

    /// Writes at this interval, whether or not anything has changed.
    #[must_use]
    pub fn every(mut self, pause: Duration) -> Self {
        self.when = When::Every(pause);
        self
    }

    /// Watches the object, and writes as soon as it differs from the saved state.
    #[must_use]
    pub fn watching(mut self) -> Self {
        self.when = When::Differs;
        self
    }

    /// Ends after this many writes.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Starts it. It ends with its last write, with [`Writing::stop`], or when it is dropped.
    pub fn start(self) -> Writing {
        let (progress, receiver) = watch::channel(Progress::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            match self.when {
                When::Every(pause) => self.write_every(pause, stopped, &progress).await,
                When::Differs => self.heal(stopped, &progress).await,
            }
        });
        Writing {
            progress: receiver,
            stop,
            task,
        }
    }

    async fn write_every(
        &self,
        pause: Duration,
        mut stopped: watch::Receiver<bool>,
        progress: &watch::Sender<Progress>,
    ) {
        while progress.borrow().written < self.times {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.changed() => return,
            }
            let written = match self.differs().await {
                Ok(differs) => self.write(differs, progress).await,
                Err(error) => Err(error),
            };
            note_failure(written, progress);
        }
    }

    async fn heal(&self, mut stopped: watch::Receiver<bool>, progress: &watch::Sender<Progress>) {
        let name = self.object.name_any();
        let changes = watcher::watch_object(self.api.clone(), &name);
        pin_mut!(changes);
        while progress.borrow().written < self.times {
            let change = tokio::select! {
                change = changes.next() => change,
                _ = stopped.changed() => return,
            };
            // The stream restarts by itself after an error.
            if let Some(Err(error)) = change {
                note_failure(Err(error.into()), progress);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            let written = match self.differs().await {
                Ok(true) => self.write(true, progress).await,
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            note_failure(written, progress);
        }
    }

    /// Whether a write would change anything. Only the server knows its defaults and how it merges lists, so a dry run
    /// decides.
    async fn differs(&self) -> Result<bool> {
        let Some(now) = self.api.get_opt(&self.object.name_any()).await? else {
            return Ok(matches!(self.how, How::Apply));
        };
        Ok(bare(self.patch(true).await?)? != bare(now)?)
    }

    async fn write(&self, differs: bool, progress: &watch::Sender<Progress>) -> Result<()> {
        self.patch(false).await?;
        progress.send_modify(|progress| {
            progress.written += 1;
            progress.restored += u32::from(differs);
            progress.failure = None;
        });
        Ok(())
    }

    async fn patch(&self, dry_run: bool) -> Result<DynamicObject> {
        let mut params = PatchParams {
            field_manager: Some(self.manager.clone()),
            dry_run,
            ..PatchParams::default()
        };
        let patch = match self.how {
            How::Apply => {
                params.force = true;
                Patch::Apply(&self.object)
            }
            How::ReplaceData => Patch::Merge(&self.object),
        };
        Ok(self.api.patch(&self.object.name_any(), &params, &patch).await?)
    }
}

fn note_failure(written: Result<()>, progress: &watch::Sender<Progress>) {
    if let Err(error) = written {
        progress.send_modify(|progress| progress.failure = Some(format!("{error:#}")));
    }
}

/// Removes the fields that every write changes.
fn bare(object: DynamicObject) -> Result<Value> {
    let mut object = serde_json::to_value(object)?;
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for moves in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(moves);
        }
    }
    Ok(object)
}

#[derive(Clone, Debug, Default)]
struct Progress {
    written: u32,
    restored: u32,
    failure: Option<String>,
}

/// A running writer.
pub struct Writing {
    progress: watch::Receiver<Progress>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Writing {
    /// The number of writes so far.
    pub fn written(&self) -> u32 {
        self.progress.borrow().written
    }

    /// The number of writes that have changed the object. Each of them has reverted a change.
    pub fn undone(&self) -> u32 {
        self.progress.borrow().restored
    }

    /// Waits for this many writes.
    pub async fn wrote(&self, times: u32) -> Result<()> {
        self.until("writes", |progress| progress.written >= times).await
    }

    /// Waits for this many writes that have changed the object.
    pub async fn restored(&self, times: u32) -> Result<()> {
        self.until("restored states", |progress| progress.restored >= times)
            .await
    }

    async fn until(&self, what: &str, done: impl Fn(&Progress) -> bool) -> Result<()> {
        let mut progress = self.progress.clone();
        let waited = tokio::time::timeout(PATIENCE, progress.wait_for(|progress| done(progress))).await;
        if matches!(waited, Ok(Ok(_))) {
            return Ok(());
        }
        let last = self.progress.borrow().clone();
        Err(anyhow!("the other writer has not come to so many {what}: {last:?}"))
    }

    /// Ends it after the write in flight, if any. Returns the number of writes.
    pub async fn stop(mut self) -> Result<u32> {
        self.stop.send_replace(true);
        (&mut self.task).await?;
        Ok(self.written())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.task.abort();
    }
}
