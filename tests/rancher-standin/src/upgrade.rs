//! Rancher is upgraded from 2.12.0 to 2.15.0 while clusters are registered: every token is moved into a Secret with its value
//! kept, and the agents are deployed again (`pkg/rancher/migrations.go`, `migrateCRTTokensToSecretsFunc`, 2.15.0).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use crate::api::read;
use crate::config::Era;
use crate::world::World;
use crate::{agent, crds, deploy, registration};

/// How long the server is away.
const RESTART: Duration = Duration::from_secs(1);

/// Upgrades. Returns when every token object names its Secret; the agents' redeploy follows by itself.
pub(crate) async fn upgrade(world: &Arc<World>) -> Result<()> {
    if world.era() == Era::Secret {
        bail!("this is {} already", Era::Secret.version());
    }
    world.log.line("upgrade", serde_json::json!({"step": "begin"}));
    world.leader_gap(RESTART);
    agent::drop_all(world, Instant::now() + RESTART);
    crds::install(&world.management, Era::Secret)
        .await
        .context("change the kinds")?;
    let (url, cacerts) = (&world.url, &world.cacerts);
    crds::configure(
        &world.management,
        Era::Secret,
        url,
        cacerts,
        world.version_in_default_only,
    )
    .await
    .context("write the settings")?;
    // The schema is served a moment after it was accepted; a status written before would be pruned.
    tokio::time::sleep(RESTART).await;
    world.set_era(Era::Secret);
    for crt in world.crts.all() {
        registration::touch(world, read::text(&crt, "/metadata/namespace"), read::name(&crt));
    }
    migrated(world).await?;
    for cluster in world.clusters.all() {
        // Seen from 2.12.0 to 2.15.0: the agents are deployed again some seconds later, under the same Secret name.
        deploy::poke(world, read::name(&cluster));
        world.note(read::name(&cluster));
    }
    world.log.line("upgrade", serde_json::json!({"step": "end"}));
    Ok(())
}

async fn migrated(world: &World) -> Result<()> {
    let mut version = world.crts.version();
    let moved = async {
        while world
            .crts
            .all()
            .iter()
            .any(|crt| read::text(crt, "/status/tokenSecretName").is_empty())
        {
            if version.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), moved)
        .await
        .context("registration tokens were not migrated in 60 s")
}
