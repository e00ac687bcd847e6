use client::ownership::Owner;
use rancher::agent::{Credentials, RolloutSettings, Strategy};
use rancher::cluster::{Cluster, ClusterKind};
use rancher::credential_name::Formula;
use rancher::settings::Settings;
use rancher::token::RegistrationToken;
use rancher::{Observed, token::ValueError};

use super::*;
use crate::report::owners::Owned;

const URL: &str = "https://rancher.example.com";

fn value(name: &str) -> Secret {
    Secret::new(format!("token-{name}"))
}

fn print(name: &str) -> Fingerprint {
    value(name).fingerprint()
}

fn object(name: &str) -> Observed {
    Observed {
        namespace: "c-x7k2p".into(),
        name: name.into(),
        uid: "u".into(),
        resource_version: "1".into(),
    }
}

fn id() -> ClusterId {
    "c-x7k2p".parse().unwrap()
}

fn cluster() -> Cluster {
    Cluster {
        object: object("c-x7k2p"),
        id: id(),
        display_name: "oslo".into(),
        kind: ClusterKind::Imported,
        annotations: [].into(),
        ca_certificate: None,
        deleting: false,
        conditions: [("Connected".to_owned(), ConditionStatus::True)].into(),
        applied_token: Some(print("N")),
        force_deploy: false,
        desired_agent_image: None,
        agent_image: None,
    }
}

fn system(held: &str) -> RegistrationToken {
    RegistrationToken {
        object: object(SYSTEM),
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

fn credentials(held: &str) -> Credentials {
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

fn deployment() -> Deployment {
    Deployment {
        object: object("cattle-cluster-agent"),
        annotations: [].into(),
        generation: 3,
        observed_generation: 3,
        replicas: 1,
        paused: false,
        strategy: Strategy::default(),
        volume_secret: Some(credentials("N").object.name),
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

fn pod(name: &str, held: &str) -> Pod {
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

fn record(first: &str, second: &str) -> StvAggregation {
    StvAggregation {
        token: Some(print(first)),
        tunnel_token: Some(print(second)),
        server_url: None,
        ca_checksum: None,
    }
}

/// A cluster whose agent uses N, without problems.
fn healthy() -> DiagnosisInputs {
    DiagnosisInputs {
        storage: Ok(TokenStorage::Secret),
        cluster: cluster(),
        tokens: Ok(Tokens {
            tokens: vec![system("N")],
            ..Tokens::default()
        }),
        deployment: Ok(Some(deployment())),
        pods: Ok(vec![pod("a", "N")]),
        record: Ok(Some(record("N", "N"))),
        credentials: Ok(Some(credentials("N"))),
        probe: Ok(ProbeResult::Accepted { cluster: Some(id()) }),
        settings: Settings {
            server_url: Some(URL.into()),
            ..Settings::default()
        },
        owned: Ok(Vec::new()),
        call: Some(Ok("v1.36.3".into())),
    }
}

fn text(checks: &[CheckResult]) -> String {
    checks.iter().fold(String::new(), |mut lines, check| {
        let _ = writeln!(lines, "{:?} {}: {}", check.status, check.name, check.message);
        lines
    })
}

#[test]
fn a_healthy_cluster_passes_every_check() {
    insta::assert_snapshot!(text(&all(&healthy())), @r#"
    Passed cluster: kind imported; Rancher reports its agent as connected
    Passed agent: Deployment cattle-cluster-agent has 1 of 1 pods available
    Passed secret: Secret cattle-credentials-31abde8281 has 582d09e244
    Passed pods: 1 of 1 agent pods ready
    Passed token: 582d09e244 is the value of registration token "system"
    Passed accepted: Rancher accepts 582d09e244 as a token of cluster c-x7k2p
    Passed deployed: Rancher's next redeploy keeps this token
    Passed address: the agent connects to https://rancher.example.com, as in Rancher's settings
    Passed owner: only Rancher manages the agent and its registration token
    Passed tunnels: the agent that connected last uses 582d09e244 for both tunnels
    Passed call: a call through Rancher succeeded (Kubernetes v1.36.3)
    "#);
    assert!(is_proven(&proofs(&healthy())));
}

/// The only check that has not passed.
fn only_problem(inputs: &DiagnosisInputs) -> String {
    let checks: Vec<CheckResult> = all(inputs)
        .into_iter()
        .filter(|check| check.status != CheckStatus::Passed)
        .collect();
    assert_eq!(checks.len(), 1, "{}", text(&checks));
    text(&checks)
}

#[test]
fn another_token_in_system_fails_the_check_deployed() {
    let mut inputs = healthy();
    let other = RegistrationToken {
        object: object("default-token"),
        ..system("N")
    };
    inputs.tokens = Ok(Tokens {
        tokens: vec![other, system("X")],
        ..Tokens::default()
    });
    insta::assert_snapshot!(only_problem(&inputs), @r#"Failed deployed: Rancher's next redeploy replaces 582d09e244 by ddc2d03aa6, the value of registration token "system""#);
    assert!(is_proven(&proofs(&inputs)), "the agent's token is proven all the same");
}

#[test]
fn an_address_that_was_not_pushed_fails_the_check() {
    let mut inputs = healthy();
    inputs.settings.server_url = Some("https://new.example.com/".into());
    assert_eq!(
        only_problem(&inputs),
        "Failed address: the agent connects to https://rancher.example.com, but Rancher's setting server-url is \
         https://new.example.com/; Rancher's next redeploy changes that\n"
    );
    inputs.settings.server_url = Some(format!("{URL}/"));
    assert!(all(&inputs).iter().all(|check| check.status == CheckStatus::Passed));
    inputs.settings.cacerts = Some("another CA".into());
    assert!(only_problem(&inputs).contains("trusts another CA"));
}

#[test]
fn an_owner_is_a_warning() {
    let mut inputs = healthy();
    inputs.owned = Ok(vec![Owned {
        what: "the agent's Deployment",
        owner: Owner::ArgocdApplication("agents".into()),
    }]);
    let checks = all(&inputs);
    let owner = checks.iter().find(|check| check.name == "owner").unwrap();
    assert_eq!(owner.status, CheckStatus::Warning);
    assert_eq!(
        owner.message,
        "the agent's Deployment is managed by Argo CD application \"agents\", which would revert a rotation"
    );
    assert!(checks.iter().all(|check| check.status != CheckStatus::Failed));
}

#[test]
fn a_previous_token_fails_two_checks() {
    let mut inputs = healthy();
    let secret = rancher::token::TokenSecret {
        object: object("crt-token-system"),
        annotations: [].into(),
        created: None,
        deleting: false,
        current: Some(value("X")),
        previous: Some(value("N")),
        expires_at: None,
        grace_ends_at: None,
        managed_by: None,
        problems: Vec::new(),
    };
    let system = RegistrationToken {
        secret: Some(secret),
        ..system("X")
    };
    inputs.tokens = Ok(Tokens {
        tokens: vec![system],
        ..Tokens::default()
    });
    let bad: Vec<&str> = all(&inputs)
        .iter()
        .filter(|check| check.status == CheckStatus::Failed)
        .map(|check| check.name)
        .collect();
    assert_eq!(bad, ["token", "deployed"]);
}

#[test]
fn what_contradicts_a_proof_is_reported() {
    let revoked = DiagnosisInputs {
        probe: Ok(ProbeResult::Rejected),
        ..healthy()
    };
    let another_cluster = DiagnosisInputs {
        probe: Ok(ProbeResult::Accepted {
            cluster: "c-other".parse().ok(),
        }),
        ..healthy()
    };
    let second_tunnel = DiagnosisInputs {
        record: Ok(Some(record("N", "O"))),
        ..healthy()
    };
    let late_pod = DiagnosisInputs {
        pods: Ok(vec![pod("a", "N"), pod("b", "O")]),
        ..healthy()
    };
    let no_pod = DiagnosisInputs {
        pods: Ok(Vec::new()),
        ..healthy()
    };
    let no_call = DiagnosisInputs {
        call: Some(Err(Unavailable("no response".into()))),
        ..healthy()
    };
    let cases = [revoked, another_cluster, second_tunnel, late_pod, no_pod, no_call];
    assert!(cases.iter().all(|inputs| !is_proven(&proofs(inputs))));
    insta::assert_snapshot!(cases.iter().map(only_problem).collect::<String>(), @r"
    Failed accepted: Rancher rejects 582d09e244
    Failed accepted: Rancher accepts 582d09e244, but as a token of cluster c-other
    Failed tunnels: the agent that connected last uses 582d09e244 for its first tunnel and 644d093c57 for the second; its Deployment has 582d09e244
    Failed pods: 2 of 2 agent pods ready; 1 with another Secret
    Failed pods: 0 of 0 agent pods ready
    Failed call: a call through Rancher failed: no response
    ");
}

#[test]
fn a_skipped_call_does_not_prevent_the_proof() {
    let inputs = DiagnosisInputs {
        call: None,
        ..healthy()
    };
    assert!(is_proven(&proofs(&inputs)));
}

#[test]
fn unknown_inputs_fail_no_check_and_prove_nothing() {
    let unavailable = || Unavailable("no route to the downstream cluster".to_owned());
    let inputs = DiagnosisInputs {
        deployment: Err(unavailable()),
        pods: Err(unavailable()),
        record: Err(unavailable()),
        credentials: Err(unavailable()),
        probe: Err(unavailable()),
        call: None,
        ..healthy()
    };
    assert!(
        all(&inputs).iter().all(|check| check.status != CheckStatus::Failed),
        "{}",
        text(&all(&inputs))
    );
    assert!(!is_proven(&proofs(&inputs)));
}

#[test]
fn an_unreadable_token_is_unknown() {
    let mut inputs = healthy();
    let system = RegistrationToken {
        value: Err(ValueError::NoPermission),
        ..system("N")
    };
    inputs.tokens = Ok(Tokens {
        tokens: vec![system],
        orphans_unknown: true,
        ..Tokens::default()
    });
    let check = |name| {
        all(&inputs)
            .into_iter()
            .find(|check| check.name == name)
            .unwrap()
            .status
    };
    assert_eq!(
        (check("token"), check("deployed")),
        (CheckStatus::Unknown, CheckStatus::Unknown)
    );
}

#[test]
fn a_held_rollout_in_progress_is_reported() {
    let rollout = RolloutSettings {
        min_ready_seconds: 1200,
        progress_deadline_seconds: 3600,
    };
    let held = Deployment {
        rollout,
        updated_replicas: 0,
        ..deployment()
    };
    let inputs = DiagnosisInputs {
        deployment: Ok(Some(held)),
        ..healthy()
    };
    insta::assert_snapshot!(only_problem(&inputs), @"Failed agent: Deployment cattle-cluster-agent has 1 of 1 pods available; its rollout is in progress; its rollout is held (minReadySeconds 1200)");
}
