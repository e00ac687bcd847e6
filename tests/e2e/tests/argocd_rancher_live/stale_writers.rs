//! Argo CD's own writes to the Secrets of clusters, in a loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use e2e::until;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, secret_of};

/// Loops that go through the same clusters again and again. They end with this.
pub(crate) struct StaleWriters {
    servers: Vec<String>,
    writes: Arc<AtomicUsize>,
    /// For each loop, how many clusters it has done with, those among them where it was refused.
    done: Vec<Arc<AtomicUsize>>,
    loops: JoinSet<()>,
}

impl StaleWriters {
    /// Starts so many loops of cache invalidation.
    pub(crate) fn by_invalidation(fixture: &Fixture, servers: &[String], loops: usize) -> Self {
        let mut begun = Self {
            servers: servers.to_vec(),
            writes: Arc::default(),
            done: Vec::new(),
            loops: JoinSet::new(),
        };
        for _ in 0..loops {
            let argo = fixture.argo;
            begun.spawn(move |server| async move { argo.invalidate_cache(&server).await }.boxed());
        }
        begun
    }

    /// Adds a loop that writes back what it has read one write of Argo CD's ago. That is what argocd-server does of itself
    /// where it reads clusters from another copy than the one that it writes on (`util/settings/cluster_informer.go`,
    /// since 3.3): 11 of 150 swaps were lost to it (seen on Argo CD 3.5.1). 3.2.11 has one copy, and lost none of 600.
    pub(crate) fn and_from_a_late_copy(mut self, fixture: &Fixture) -> Self {
        let (argo, secrets) = (fixture.argo, fixture.secrets.clone());
        self.spawn(move |server| {
            let secrets = secrets.clone();
            async move {
                let before = secret_of(&secrets, &server).await?;
                // The time in which the copy is behind.
                argo.invalidate_cache(&server).await?;
                write_back(&secrets, before).await
            }
            .boxed()
        });
        self
    }

    fn spawn(&mut self, write: impl Fn(String) -> BoxFuture<'static, Result<()>> + Send + 'static) {
        let done = Arc::new(AtomicUsize::new(0));
        self.done.push(Arc::clone(&done));
        let (writes, servers) = (Arc::clone(&self.writes), self.servers.clone());
        self.loops.spawn(async move {
            for server in servers.into_iter().cycle() {
                // It is refused when somebody else was faster, which is the point.
                if write(server).await.is_ok() {
                    writes.fetch_add(1, Ordering::Relaxed);
                }
                done.fetch_add(1, Ordering::Relaxed);
                // A write that fails at once never waits, and a task that never waits can never be ended.
                tokio::task::yield_now().await;
            }
        });
    }

    /// How many writes there were so far.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    /// Returns when no write is under way any more that was at the call: every loop has come round twice since.
    pub(crate) async fn turns_over(&self) -> Result<()> {
        let done = || self.done.iter().map(|done| done.load(Ordering::Relaxed));
        let enough: Vec<usize> = done().map(|done| done + 2 * self.servers.len()).collect();
        until("the writes that were under way", async || {
            Ok(done().zip(&enough).all(|(done, enough)| done >= *enough).then_some(()))
        })
        .await
    }

    /// Ends the loops, and tells how many writes there were.
    pub(crate) async fn end(mut self) -> usize {
        self.loops.shutdown().await;
        self.writes()
    }
}

/// All data as they were, onto the object as it is.
async fn write_back(secrets: &Api<Secret>, before: Secret) -> Result<()> {
    let name = before.metadata.name.clone().unwrap_or_default();
    let mut now = secrets.get(&name).await?;
    now.data = before.data;
    secrets.replace(&name, &PostParams::default(), &now).await?;
    Ok(())
}
