//! Objects of a cluster whose agent uses one token, for unit tests.

use client::secret::{Fingerprint, Secret};
use rancher::agent::{Credentials, Deployment, Pod, RolloutSettings, Strategy, StvAggregation};
use rancher::cluster::{Cluster, ClusterKind, ConditionStatus};
use rancher::credential_name::Formula;
use rancher::probe::ProbeResult;
use rancher::settings::Settings;
use rancher::token::{RegistrationToken, SYSTEM, TokenSecret, Tokens};
use rancher::{ClusterId, Observed, TokenStorage};

use crate::report::inputs::DiagnosisInputs;

/// Rancher's URL.
pub(crate) const URL: &str = "https://rancher.example.com";

/// A token of this name.
pub(crate) fn value(name: &str) -> Secret {
    Secret::new(format!("token-{name}"))
}

/// Its fingerprint.
pub(crate) fn print(name: &str) -> Fingerprint {
    value(name).fingerprint()
}

/// The cluster's id.
pub(crate) fn id() -> ClusterId {
    "c-x7k2p".parse().unwrap()
}

pub(crate) fn object(name: &str) -> Observed {
    Observed {
        namespace: "c-x7k2p".into(),
        name: name.into(),
        uid: "u".into(),
        resource_version: "1".into(),
    }
}

/// A connected cluster, where Rancher applied this token last.
pub(crate) fn cluster(applied: &str) -> Cluster {
    Cluster {
        workspace: None,
        object: object("c-x7k2p"),
        id: id(),
        display_name: "oslo".into(),
        kind: ClusterKind::Imported,
        annotations: [].into(),
        ca_certificate: None,
        deleting: false,
        conditions: [("Connected".to_owned(), ConditionStatus::True)].into(),
        applied_token: Some(print(applied)),
        force_deploy: false,
        desired_agent_image: None,
        agent_image: None,
    }
}

/// A registration token with this value.
pub(crate) fn token(name: &str, held: &str) -> RegistrationToken {
    RegistrationToken {
        object: object(name),
        labels: [].into(),
        annotations: [].into(),
        created: None,
        deleting: false,
        managed_by: None,
        value: Ok(value(held)),
        secret: None,
        secret_name: None,
        status_expires_at: None,
        status_grace_ends_at: None,
        problems: Vec::new(),
    }
}

/// The registration token `system` with this value.
pub(crate) fn system(held: &str) -> RegistrationToken {
    token(SYSTEM, held)
}

/// The Secret of `system` with these values.
pub(crate) fn token_secret(current: &str, previous: Option<&str>) -> TokenSecret {
    TokenSecret {
        object: object("crt-token-system"),
        annotations: [].into(),
        created: None,
        deleting: false,
        current: Some(value(current)),
        previous: previous.map(value),
        expires_at: None,
        grace_ends_at: None,
        managed_by: None,
        problems: Vec::new(),
    }
}

/// The agent's Secret with this token.
pub(crate) fn credentials(held: &str) -> Credentials {
    Credentials {
        object: object(&Formula::Sha256.name_for(URL, &value(held), &id())),
        created: None,
        deleting: false,
        url: Some(URL.into()),
        token: Some(value(held)),
        namespace: "c-x7k2p".into(),
        problems: Vec::new(),
    }
}

/// The agent's Deployment, which names the Secret with this token.
pub(crate) fn deployment(named: &str) -> Deployment {
    Deployment {
        object: object("cattle-cluster-agent"),
        annotations: [].into(),
        generation: 3,
        observed_generation: 3,
        replicas: 1,
        paused: false,
        strategy: Strategy::default(),
        volume_secret: Some(credentials(named).object.name),
        variables: Vec::new(),
        rollout: RolloutSettings::default(),
        restarted_at: None,
        server_url: Some(URL.into()),
        ca_checksum: None,
        opens_both_tunnels: true,
        status_replicas: 1,
        updated_replicas: 1,
        available_replicas: 1,
        failure: None,
    }
}

/// A pod that mounts the Secret with this token.
pub(crate) fn pod(name: &str, held: &str) -> Pod {
    Pod {
        name: name.into(),
        secret: Some(credentials(held).object.name),
        server_url: None,
        ca_checksum: None,
        restarted_at: None,
        ready: true,
        terminating: false,
        finished: false,
        waiting: None,
    }
}

/// What an agent with these tokens for its two tunnels has written.
pub(crate) fn stv_aggregation(first: &str, second: &str) -> StvAggregation {
    StvAggregation {
        token: Some(print(first)),
        tunnel_token: Some(print(second)),
        server_url: None,
        ca_checksum: None,
    }
}

/// A cluster whose agent uses N, without problems.
pub(crate) fn healthy() -> DiagnosisInputs {
    DiagnosisInputs {
        storage: Ok(TokenStorage::Secret),
        cluster: cluster("N"),
        tokens: Ok(Tokens {
            tokens: vec![RegistrationToken {
                secret_name: Some("crt-token-system".into()),
                ..system("N")
            }],
            ..Tokens::default()
        }),
        deployment: Ok(Some(deployment("N"))),
        pods: Ok(vec![pod("a", "N")]),
        record: Ok(Some(stv_aggregation("N", "N"))),
        credentials: Ok(Some(credentials("N"))),
        probe: Ok(ProbeResult::Accepted { cluster: Some(id()) }),
        settings: Settings {
            server_url: Some(URL.into()),
            ..Settings::default()
        },
        owned: Ok(Vec::new()),
        call: Some(Ok(Some("v1.36.3".into()))),
        machines: Ok(Vec::new()),
        plans: Ok(std::collections::BTreeMap::new()),
    }
}
