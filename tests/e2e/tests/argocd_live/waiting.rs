//! A sync that does not end before the test says so, for what must not disturb one that runs.

use anyhow::Result;
use e2e::until;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::{Content, GATE, Operation};

use crate::bench::{Bench, Deployed};

/// It runs, and waits for its hook.
pub(crate) struct Waiting<'a> {
    bench: &'a Bench,
    deployed: Deployed,
}

/// Starts one in the cluster, which Argo CD must know, and returns when it waits.
pub(crate) async fn a_sync_that_waits(bench: &Bench) -> Result<Waiting<'_>> {
    let deployed = bench.deploy(Content::Gated).await?;
    bench.becomes("Successful").await?;
    bench.argo.sync(&deployed.application).await?;
    let waiting = Waiting { bench, deployed };
    let gates = waiting.gates().await?;
    until("the sync to wait", async || {
        let running = waiting.operation().await?.filter(|operation| !operation.is_over());
        let gate = gates.get_opt(GATE).await?;
        Ok(running.and(gate).map(drop))
    })
    .await?;
    Ok(waiting)
}

impl Waiting<'_> {
    /// Lets it go on, and waits for its end.
    pub(crate) async fn goes_on_and_ends(&self) -> Result<Operation> {
        let done = json!({"status": {"phase": "Succeeded"}});
        let gates = self.gates().await?;
        gates
            .patch_status(GATE, &PatchParams::default(), &Patch::Merge(&done))
            .await?;
        until("the sync to end", async || {
            Ok(self.operation().await?.filter(Operation::is_over))
        })
        .await
    }

    async fn operation(&self) -> Result<Option<Operation>> {
        self.bench.argo.operation(&self.deployed.application).await
    }

    async fn gates(&self) -> Result<Api<Pod>> {
        let client = self.bench.story.downstream.client().await?;
        Ok(Api::namespaced(client, &self.deployed.namespace))
    }
}
