//! A sync that does not end until the test releases it.

use anyhow::Result;
use e2e::until;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use test_cluster::{Content, GATE, Operation};

use crate::fixture::{Deployed, Fixture};

/// A running sync that waits for its hook.
pub(crate) struct BlockedSync<'a> {
    fixture: &'a Fixture,
    deployed: Deployed,
}

/// Starts a sync in the cluster, which Argo CD must have, and returns when it waits for the hook.
pub(crate) async fn start_blocked_sync(fixture: &Fixture) -> Result<BlockedSync<'_>> {
    let deployed = fixture.deploy(Content::Gated).await?;
    fixture.becomes("Successful").await?;
    fixture.argo.sync(&deployed.application).await?;
    let sync = BlockedSync { fixture, deployed };
    let gates = sync.gates().await?;
    until("the sync to wait", async || {
        let running = sync.operation().await?.filter(|operation| !operation.is_over());
        let gate = gates.get_opt(GATE).await?;
        Ok(running.and(gate).map(drop))
    })
    .await?;
    Ok(sync)
}

impl BlockedSync<'_> {
    /// Ends the hook, and waits for the end of the sync.
    pub(crate) async fn release_and_wait(&self) -> Result<Operation> {
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
        self.fixture.argo.operation(&self.deployed.application).await
    }

    async fn gates(&self) -> Result<Api<Pod>> {
        let client = self.fixture.base.downstream.client().await?;
        Ok(Api::namespaced(client, &self.deployed.namespace))
    }
}
