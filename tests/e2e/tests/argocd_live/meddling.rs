//! Argo CD's own writes into the Secrets of clusters, as fast as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use tokio::task::JoinSet;

use crate::bench::{Bench, secret_of};

/// Loops that write. They end with this.
pub(crate) struct Meddling {
    writes: Arc<AtomicUsize>,
    loops: JoinSet<()>,
}

impl Meddling {
    /// Starts so many loops of cache invalidation, each of which goes through these clusters again and again.
    pub(crate) fn by_invalidation(bench: &Bench, servers: &[String], loops: usize) -> Self {
        let mut begun = Self {
            writes: Arc::default(),
            loops: JoinSet::new(),
        };
        for _ in 0..loops {
            let (argo, writes, servers) = (bench.argo, Arc::clone(&begun.writes), servers.to_vec());
            begun.loops.spawn(async move {
                for server in servers.iter().cycle() {
                    // It is refused when somebody else was faster, which is the point.
                    if argo.invalidate_cache(server).await.is_ok() {
                        writes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        begun
    }

    /// Adds a loop that writes back what it has read one write of Argo CD's ago. That is what argocd-server does of itself
    /// where it reads clusters from another copy than the one that it writes on (`util/settings/cluster_informer.go`,
    /// since 3.3): 11 of 150 swaps were lost to it (seen on Argo CD 3.5.1). 3.2.11 has one copy, and lost none of 600.
    pub(crate) fn and_from_a_late_copy(mut self, bench: &Bench, servers: &[String]) -> Self {
        let (secrets, writes, servers) = (bench.secrets.clone(), Arc::clone(&self.writes), servers.to_vec());
        let argo = bench.argo;
        self.loops.spawn(async move {
            for server in servers.iter().cycle() {
                let Ok(before) = secret_of(&secrets, server).await else {
                    continue;
                };
                // The time in which the copy is behind.
                if argo.invalidate_cache(server).await.is_ok() && write_back(&secrets, before).await.is_ok() {
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        self
    }

    /// How many writes there were so far.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    /// Ends the loops. A last write may still be under way at the API server.
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
