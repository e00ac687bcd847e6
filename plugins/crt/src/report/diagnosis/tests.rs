use client::ownership::Owner;
use rancher::agent::RolloutSettings;
use rancher::provisioned::MachinePlan;
use rancher::token::{RegistrationToken, ValueError};

use super::*;
use crate::fixtures::{self, URL, deployment, healthy, object, pod, stv_aggregation, token_secret};
use crate::report::owners::Owned;

/// The registration token `system` with this value, in storage `secret`.
fn system(held: &str) -> RegistrationToken {
    RegistrationToken {
        secret_name: Some("crt-token-system".into()),
        ..fixtures::system(held)
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

fn plan(machine: &str, is_applied: bool) -> (String, MachinePlan) {
    let token = Some(Secret::new("N".to_owned()));
    let plan = MachinePlan {
        planned: token.clone(),
        applied: token,
        is_applied,
        updated: None,
    };
    (machine.to_owned(), plan)
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
fn what_a_downgrade_has_left_is_named() {
    let mut inputs = healthy();
    let mut token = fixtures::system("N");
    let tokens = |token: &RegistrationToken| {
        Ok(Tokens {
            tokens: vec![token.clone()],
            ..Tokens::default()
        })
    };
    inputs.tokens = tokens(&token);
    insta::assert_snapshot!(only_problem(&inputs), @"Warning storage: Rancher keeps registration tokens both in Secrets and in the status of the tokens (without a Secret: c-x7k2p/system): its migration is not finished, or it was downgraded");
    token.secret = Some(token_secret("X", None));
    inputs.tokens = tokens(&token);
    assert!(only_problem(&inputs).ends_with("; no token names these Secrets: crt-token-system\n"));
    (inputs.storage, token.secret) = (Ok(TokenStorage::Status), None);
    inputs.tokens = tokens(&token);
    assert!(all(&inputs).iter().all(|check| check.status == CheckStatus::Passed));
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
fn the_nodes_of_a_provisioned_cluster_deploy_the_first_token_by_name() {
    let mut inputs = healthy();
    let other = RegistrationToken {
        object: object("default-token"),
        ..system("X")
    };
    inputs.tokens = Ok(Tokens {
        tokens: vec![other, system("N")],
        ..Tokens::default()
    });
    assert!(all(&inputs).iter().all(|check| check.status == CheckStatus::Passed));
    inputs.cluster.kind = ClusterKind::Provisioned;
    inputs.plans = Ok([plan("custom-1", true)].into());
    assert_eq!(
        only_problem(&inputs),
        "Warning deployed: Rancher's next redeploy keeps this token, and the cluster's nodes replace it by ddc2d03aa6, the value of \
         registration token \"default-token\", the first by name\n"
    );
    inputs.tokens = healthy().tokens;
    inputs.plans = Ok([plan("custom-1", true), plan("custom-2", false)].into());
    assert_eq!(
        only_problem(&inputs),
        "Failed plans: not every machine has applied its plan: custom-2 (it deploys 8ce86a6ae6)\n"
    );
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
    assert!(only_problem(&inputs).contains("trusts the CAs of its system, but Rancher's setting cacerts has one"));
    let mut deployment = deployment("N");
    deployment.ca_checksum = Some("5f0e".into());
    inputs.deployment = Ok(Some(deployment));
    inputs.settings.server_url = Some("https://new.example.com".into());
    assert_eq!(
        only_problem(&inputs),
        "Failed address: the agent connects to https://rancher.example.com, but Rancher's setting server-url is \
         https://new.example.com, and the agent trusts another CA than the one in Rancher's setting cacerts; Rancher's next redeploy \
         changes that\n"
    );
    inputs.settings.cacerts = None;
    assert!(only_problem(&inputs).contains("trusts a CA of its own, but Rancher's setting cacerts is empty"));
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
    let system = RegistrationToken {
        secret: Some(token_secret("X", Some("N"))),
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
        record: Ok(Some(stv_aggregation("N", "O"))),
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
        ..deployment("N")
    };
    let inputs = DiagnosisInputs {
        deployment: Ok(Some(held)),
        ..healthy()
    };
    insta::assert_snapshot!(only_problem(&inputs), @"Failed agent: Deployment cattle-cluster-agent has 1 of 1 pods available; its rollout is in progress; its rollout is held (minReadySeconds 1200)");
}
