//! Rancher is upgraded from 2.12.0 to 2.15.0 while clusters are registered: every token is moved into a Secret with its value
//! kept, and the agents are deployed again (`pkg/rancher/migrations.go`, `migrateCRTTokensToSecretsFunc`, 2.15.0).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};

use crate::api::{ApiError, paths, read};
use crate::config::TokenStorage;
use crate::world::World;
use crate::{agent, crds, deploy, registration};

/// Upgrades Rancher. While the server is replaced, no controller acts and no tunnel opens. Valid tokens stay valid.
/// Returns when every token has moved; the redeploy of the agents follows by itself.
pub(crate) async fn upgrade(world: &Arc<World>) -> Result<()> {
    if world.storage() == TokenStorage::Secret {
        bail!("this is {} already", TokenStorage::Secret.version());
    }
    world.log.line("upgrade", serde_json::json!({"step": "begin"}));
    world.leader_gap(Duration::from_mins(10));
    world.serve_tunnels(false);
    agent::drop_all(world);
    let result = migrate(world).await;
    world.serve_tunnels(true);
    world.leader_gap(Duration::ZERO);
    result?;
    for cluster in world.clusters.all() {
        // Seen from 2.12.0 to 2.15.0: the agents are deployed again some seconds later, under the same Secret name.
        deploy::poke(world, read::name(&cluster));
        world.note(read::name(&cluster));
    }
    world.log.line("upgrade", serde_json::json!({"step": "end"}));
    Ok(())
}

async fn migrate(world: &Arc<World>) -> Result<()> {
    crds::install(&world.management, TokenStorage::Secret)
        .await
        .context("change the kinds")?;
    // A start of Rancher resets `cacerts` to its file (seen on Rancher 2.15.0).
    let (url, cacerts) = (&world.server_url(), &world.served_ca);
    crds::configure(
        &world.management,
        TokenStorage::Secret,
        url,
        cacerts,
        world.version_in_default_only,
    )
    .await
    .context("write the settings")?;
    new_schema(world).await?;
    world.index.accept_either(true);
    futures::stream::iter(world.crts.all())
        .map(|crt| async move {
            registration::migrate(world, read::text(&crt, "/metadata/namespace"), read::name(&crt)).await
        })
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await
        .context("move registration tokens into Secrets")?;
    world.set_storage(TokenStorage::Secret);
    world.index.accept_either(false);
    Ok(())
}

/// A new schema is served a moment after it was accepted. A status written before would be pruned. A dry run shows it.
async fn new_schema(world: &World) -> Result<()> {
    let probe = serde_json::json!({
        "apiVersion": "management.cattle.io/v3", "kind": "ClusterRegistrationToken",
        "metadata": {"name": "schema-probe"}, "status": {"tokenSecretName": "x"},
    });
    let path = format!("{}?dryRun=All", paths::crts("default"));
    // Twenty responses in a row: an API server applies a new schema to one handler at a time.
    let mut kept = 0;
    for _ in 0..600 {
        match world.management.create(&path, &probe).await {
            Ok(object) if read::text(&object, "/status/tokenSecretName") == "x" => kept += 1,
            Ok(_) | Err(ApiError::NotFound) => kept = 0,
            Err(error) => return Err(error).context("try the new schema"),
        }
        if kept == 20 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    bail!("the new schema of registration tokens was not served in 15 s")
}
