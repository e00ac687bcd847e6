//! `--dry-run=server`: the API servers check the steps that do not depend on earlier ones, and store nothing. New values are drawn
//! for the check only.

use client::secret::Secret;
use engine::controller::ServerCheck;
use rancher::agent::{self, CredentialsContent, Placement, RolloutSettings};
use rancher::credential_name::Formula;
use rancher::object;
use rancher::token::{self, Change, NewToken, RegistrationToken, SYSTEM, SecretChange};
use rancher::{Result, cluster};

use super::{FIELD_MANAGER, TRIGGERED};
use crate::connections::{Connections, DOWNSTREAM, MANAGEMENT};
use crate::rotation::step::Step;

/// Sends one step as a dry run.
pub(super) async fn check(connections: &Connections, step: &Step) -> ServerCheck {
    let checker = Checker {
        connections,
        by: object::Write::by(FIELD_MANAGER).dry_run(true),
    };
    checker.check(step).await
}

struct Checker<'a> {
    connections: &'a Connections,
    by: object::Write,
}

impl Checker<'_> {
    async fn check(&self, step: &Step) -> ServerCheck {
        let (side, sent) = match step {
            Step::SetNew => (MANAGEMENT, self.renew(SYSTEM).await),
            Step::Renew { name } => (MANAGEMENT, self.renew(name).await),
            Step::CreateTemporary { .. } => (MANAGEMENT, self.create("zz-crt-temporary-check").await),
            Step::TriggerApply { .. } | Step::Recreate => (MANAGEMENT, self.trigger().await),
            Step::CreateCredentials { .. } => (DOWNSTREAM, self.create_credentials().await),
            Step::PointHeld { .. } => (DOWNSTREAM, self.place().await),
            _ => (MANAGEMENT, Ok(false)),
        };
        match sent {
            Ok(false) => ServerCheck::NotChecked("it depends on earlier steps"),
            Ok(true) => ServerCheck::Accepted,
            Err(error) => ServerCheck::Rejected(error.on(side)),
        }
    }

    /// Sets another value on a token, or creates `system`. `false`: there is no object to change.
    async fn renew(&self, name: &str) -> Result<bool> {
        let client = &self.connections.management.client;
        let Some(found) = token::get(client, &self.connections.cluster.id, name).await? else {
            return if name == SYSTEM {
                self.create(name).await
            } else {
                Ok(false)
            };
        };
        let value = token::generate()?;
        let RegistrationToken {
            object,
            secret_name,
            secret,
            ..
        } = found;
        match (secret_name, secret) {
            (None, _) => token::set_status_value(client, &object, &value, &self.by)
                .await
                .map(drop)?,
            (Some(_), None) => return Ok(false),
            (Some(_), Some(secret)) => {
                let change = SecretChange {
                    previous: secret.current.map_or(Change::Keep, Change::Set),
                    current: Some(value),
                    ..SecretChange::default()
                };
                token::change_secret(client, &secret.object, &change, &self.by)
                    .await
                    .map(drop)?;
            }
        }
        Ok(true)
    }

    async fn create(&self, name: &str) -> Result<bool> {
        let new = NewToken {
            name: name.to_owned(),
            value: Some(token::generate()?),
            ..NewToken::default()
        };
        token::create(
            &self.connections.management.client,
            &self.connections.cluster.id,
            &new,
            &self.by,
        )
        .await?;
        Ok(true)
    }

    async fn trigger(&self) -> Result<bool> {
        let now = self.connections.management.clock.now().to_string();
        let annotations = [(TRIGGERED, now.as_str())];
        cluster::trigger_reconcile(
            &self.connections.management.client,
            &self.connections.cluster.object,
            &annotations,
            &self.by,
        )
        .await?;
        Ok(true)
    }

    async fn create_credentials(&self) -> Result<bool> {
        let Some(downstream) = &self.connections.downstream else {
            return Ok(false);
        };
        let token: Secret = token::generate()?;
        let url = self.connections.settings.server_url.clone().unwrap_or_default();
        let name = Formula::Sha256.name_for(&url, &token, &self.connections.cluster.id);
        let content = CredentialsContent {
            url,
            token,
            namespace: self.connections.cluster.id.to_string(),
        };
        let client = &downstream.server.client;
        agent::create_credentials(client, &name, &content, &[].into(), &self.by).await?;
        Ok(true)
    }

    async fn place(&self) -> Result<bool> {
        let Some(downstream) = &self.connections.downstream else {
            return Ok(false);
        };
        let client = &downstream.server.client;
        let Some(deployment) = agent::deployment(client).await? else {
            return Ok(false);
        };
        let placement = Placement {
            secret: deployment.volume_secret.clone().unwrap_or_default(),
            rollout: Some(RolloutSettings {
                min_ready_seconds: 600,
                progress_deadline_seconds: 3600,
            }),
            restarted_at: Change::Keep,
            address: None,
        };
        agent::place(client, &deployment, &placement, &self.by).await?;
        Ok(true)
    }
}
