//! What else writes the objects that a rotation changes, and would restore their old state.

use std::fmt;

use client::error::Error;
use client::ownership::{self, Owner};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rancher::agent;
use rancher::token::{self, RegistrationToken, SYSTEM};

use crate::connections::{Connections, DOWNSTREAM, Downstream, MANAGEMENT};

/// An object with an owner. `Display` is a clause: `the agent's Deployment is managed by Helm release rancher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    /// The object, in a sentence.
    pub(crate) what: &'static str,
    /// Its owner.
    pub(crate) owner: Owner,
}

impl fmt::Display for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is managed by {}", self.what, self.owner)
    }
}

/// The owners of the agent's Deployment and of the Secret that it names.
pub(crate) async fn of_agent(downstream: &Downstream, secret: Option<&str>) -> Result<Vec<Owned>, Error> {
    let client = &downstream.server.client;
    let of_secret = async {
        match secret {
            Some(name) => agent::credentials_metadata(client, name).await,
            None => Ok(None),
        }
    };
    let (deployment, secret) =
        futures::try_join!(agent::deployment_metadata(client), of_secret).map_err(|error| error.on(DOWNSTREAM))?;
    Ok(owned([
        ("the agent's Deployment", deployment),
        ("the agent's Secret", secret),
    ]))
}

/// The owners of the registration token `system` and of its Secret.
pub(crate) async fn of_system(
    connections: &Connections,
    system: Option<&RegistrationToken>,
) -> Result<Vec<Owned>, Error> {
    let Some(system) = system else { return Ok(Vec::new()) };
    let (client, id) = (&connections.management.client, &connections.cluster.id);
    let of_secret = async {
        match &system.secret {
            Some(secret) => token::secret_metadata(client, id, &secret.object.name).await,
            None => Ok(None),
        }
    };
    let (system, secret) =
        futures::try_join!(token::metadata(client, id, SYSTEM), of_secret).map_err(|error| error.on(MANAGEMENT))?;
    Ok(owned([
        ("registration token \"system\"", system),
        ("the Secret of registration token \"system\"", secret),
    ]))
}

fn owned(objects: [(&'static str, Option<ObjectMeta>); 2]) -> Vec<Owned> {
    let with_owner = objects.into_iter().filter_map(|(what, metadata)| {
        let owner = ownership::owner(&metadata?)?;
        Some(Owned { what, owner })
    });
    with_owner.collect()
}
