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

/// Loops that write to the same clusters again and again. They end when this is dropped.
pub(crate) struct StaleWriters {
    servers: Vec<String>,
    writes: Arc<AtomicUsize>,
    /// For each loop, the number of attempted writes.
    done: Vec<Arc<AtomicUsize>>,
    loops: JoinSet<()>,
}

impl StaleWriters {
    /// Starts loops of cache invalidation.
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

    /// Adds a loop that writes back a copy from before the last write of Argo CD. argocd-server does that by itself since 3.3,
    /// because it reads clusters from another cache than the one that it writes to (`util/settings/cluster_informer.go`): 11 of
    /// 150 swaps were lost (seen on Argo CD 3.5.1). 3.2.11 has one cache, and lost none of 600.
    pub(crate) fn and_from_a_late_copy(mut self, fixture: &Fixture) -> Self {
        let (argo, secrets) = (fixture.argo, fixture.secrets.clone());
        self.spawn(move |server| {
            let secrets = secrets.clone();
            async move {
                let before = secret_of(&secrets, &server).await?;
                // The copy is outdated after this write.
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
                // A conflict is expected: another writer was faster.
                if write(server).await.is_ok() {
                    writes.fetch_add(1, Ordering::Relaxed);
                }
                done.fetch_add(1, Ordering::Relaxed);
                // A task that never waits cannot be cancelled, and a write that fails at once does not wait.
                tokio::task::yield_now().await;
            }
        });
    }

    /// The number of successful writes so far.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    /// Returns when every write that is in flight now has ended: each loop has gone through its clusters twice since.
    pub(crate) async fn settle(&self) -> Result<()> {
        let done = || self.done.iter().map(|done| done.load(Ordering::Relaxed));
        let enough: Vec<usize> = done().map(|done| done + 2 * self.servers.len()).collect();
        until("the writes in flight", async || {
            Ok(done().zip(&enough).all(|(done, enough)| done >= *enough).then_some(()))
        })
        .await
    }

    /// Ends the loops, and returns the number of successful writes.
    pub(crate) async fn end(mut self) -> usize {
        self.loops.shutdown().await;
        self.writes()
    }
}

/// Writes old data into the current object.
async fn write_back(secrets: &Api<Secret>, before: Secret) -> Result<()> {
    let name = before.metadata.name.clone().unwrap_or_default();
    let mut now = secrets.get(&name).await?;
    now.data = before.data;
    secrets.replace(&name, &PostParams::default(), &now).await?;
    Ok(())
}
