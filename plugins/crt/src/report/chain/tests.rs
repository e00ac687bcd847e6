use client::ownership::Owner;
use rancher::agent::{Credentials, Hold, Strategy};
use rancher::cluster::{Cluster, ClusterKind, Condition};
use rancher::credential_name::Formula;
use rancher::settings::Settings;
use rancher::token::RegistrationToken;
use rancher::{Observed, token::Unknown};

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

fn condition(status: ConditionStatus) -> Condition {
    Condition {
        status,
        reason: String::new(),
        message: String::new(),
        updated: None,
    }
}

fn cluster() -> Cluster {
    Cluster {
        object: object("c-x7k2p"),
        id: id(),
        display_name: "oslo".into(),
        workspace: None,
        kind: ClusterKind::Imported,
        internal: false,
        driver: "imported".into(),
        provider: String::new(),
        labels: [].into(),
        annotations: [].into(),
        ca_certificate: None,
        created: None,
        deleting: false,
        conditions: [("Connected".to_owned(), condition(ConditionStatus::True))].into(),
        applied_token: Some(print("N")),
        force_deploy: false,
        desired_agent_image: None,
        agent_image: None,
        nodes: 1,
        problems: Vec::new(),
    }
}

fn system(held: &str) -> RegistrationToken {
    RegistrationToken {
        object: object(SYSTEM),
        cluster_name: "c-x7k2p".into(),
        labels: [].into(),
        annotations: [].into(),
        created: None,
        deleting: false,
        managed_by: None,
        value: Ok(value(held)),
        secret: None,
        secret_name: None,
        leftover: None,
        status_expires_at: None,
        status_grace_ends_at: None,
        has_commands: true,
        problems: Vec::new(),
    }
}

fn credentials(held: &str) -> Credentials {
    Credentials {
        object: object(&Formula::Sha256.name_for(URL, &value(held), &id())),
        created: None,
        deleting: false,
        labels: [].into(),
        annotations: [].into(),
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
        hold: Hold::default(),
        restarted_at: None,
        image: None,
        server_url: Some(URL.into()),
        ca_checksum: None,
        opens_both_tunnels: true,
        status_replicas: 1,
        updated_replicas: 1,
        ready_replicas: 1,
        available_replicas: 1,
        failure: None,
    }
}

fn pod(name: &str, held: &str) -> Pod {
    Pod {
        name: name.into(),
        uid: name.into(),
        secret: Some(credentials(held).object.name),
        server_url: None,
        ca_checksum: None,
        restarted_at: None,
        ready: true,
        terminating: false,
        finished: false,
        replica_set: None,
        template_hash: None,
        created: None,
        waiting: None,
        restarts: 0,
    }
}

fn record(first: &str, second: &str) -> StvAggregation {
    StvAggregation {
        object: object("stv-aggregation"),
        token: Some(print(first)),
        tunnel_token: Some(print(second)),
        server_url: None,
        ca_checksum: None,
        tunnel_url: None,
        problems: Vec::new(),
    }
}

/// A cluster whose agent runs with N, and all is well.
fn well() -> Evidence {
    Evidence {
        era: Ok(TokenStorage::Secret),
        cluster: cluster(),
        tokens: Ok(Tokens {
            tokens: vec![system("N")],
            ..Tokens::default()
        }),
        deployment: Ok(Some(deployment())),
        pods: Ok(vec![pod("a", "N")]),
        record: Ok(Some(record("N", "N"))),
        credentials: Ok(Some(credentials("N"))),
        result: Ok(ProbeResult::Accepted { cluster: Some(id()) }),
        settings: Settings {
            server_url: Some(URL.into()),
            ..Settings::default()
        },
        owned: Ok(Vec::new()),
        call: Some(Ok("v1.36.3".into())),
    }
}

fn shown(links: &[Link]) -> String {
    links.iter().fold(String::new(), |mut text, link| {
        let _ = writeln!(text, "{:?} {}: {}", link.status, link.name, link.message);
        text
    })
}

#[test]
fn a_cluster_that_is_well_has_no_bad_link_and_is_proven() {
    insta::assert_snapshot!(shown(&chain(&well())), @r"
    Good cluster: c-x7k2p is of kind imported; Rancher says that its agent is connected
    Good agent: Deployment cattle-cluster-agent has 1 of 1 pods available
    Good secret: Secret cattle-credentials-31abde8281 holds 582d09e244
    Good pods: 1 of 1 pods of the agent run
    Good token: 582d09e244 is the value of registration token system
    Good accepted: Rancher accepts 582d09e244 as a token of cluster c-x7k2p
    Good deployed: Rancher would deploy the same token again
    Good address: the agent connects to https://rancher.example.com, as Rancher's settings say
    Good owner: nothing but Rancher manages the agent and its registration token
    Good tunnels: the agent that connected last did so with 582d09e244, and opens its second tunnel with it
    Good call: a fresh call through Rancher was answered (Kubernetes v1.36.3)
    ");
    assert!(is_proven(&proofs(&well())));
}

/// The one link that is not good, where exactly one is not.
fn odd(evidence: &Evidence) -> String {
    let links: Vec<Link> = chain(evidence)
        .into_iter()
        .filter(|link| link.status != Standing::Good)
        .collect();
    assert_eq!(links.len(), 1, "{}", shown(&links));
    shown(&links)
}

#[test]
fn rancher_would_put_another_token_back() {
    let mut evidence = well();
    let other = RegistrationToken {
        object: object("default-token"),
        ..system("N")
    };
    evidence.tokens = Ok(Tokens {
        tokens: vec![other, system("X")],
        ..Tokens::default()
    });
    insta::assert_snapshot!(odd(&evidence), @"Bad deployed: Rancher would deploy ddc2d03aa6, the value of system, at the next redeploy; the agent runs with 582d09e244");
    assert!(
        is_proven(&proofs(&evidence)),
        "what the agent runs with is proven all the same"
    );
}

#[test]
fn a_changed_address_that_is_not_pushed_is_bad() {
    let mut evidence = well();
    evidence.settings.server_url = Some("https://new.example.com/".into());
    assert_eq!(
        odd(&evidence),
        "Bad address: the agent connects to https://rancher.example.com, and Rancher's setting server-url says \
         https://new.example.com/; the next redeploy by Rancher changes that\n"
    );
    evidence.settings.server_url = Some(format!("{URL}/"));
    assert!(chain(&evidence).iter().all(|link| link.status == Standing::Good));
    evidence.settings.cacerts = Some("another CA".into());
    assert!(odd(&evidence).contains("trusts another CA"));
}

#[test]
fn an_owner_is_named_and_is_no_fault() {
    let mut evidence = well();
    evidence.owned = Ok(vec![Owned {
        what: "the agent's Deployment",
        owner: Owner::ArgocdApplication("agents".into()),
    }]);
    let links = chain(&evidence);
    let owner = links.iter().find(|link| link.name == "owner").unwrap();
    assert_eq!(owner.status, Standing::Caution);
    assert_eq!(
        owner.message,
        "the agent's Deployment is managed by Argo CD application \"agents\", which would undo a rotation"
    );
    assert!(links.iter().all(|link| link.status != Standing::Bad));
}

#[test]
fn a_token_that_is_only_the_previous_one_will_die() {
    let mut evidence = well();
    let secret = rancher::token::TokenSecret {
        object: object("crt-token-system"),
        annotations: [].into(),
        created: None,
        deleting: false,
        current: Some(value("X")),
        previous: Some(value("N")),
        expires_at: None,
        grace_ends_at: None,
        owner: None,
        managed_by: None,
        problems: Vec::new(),
    };
    let system = RegistrationToken {
        secret: Some(secret),
        ..system("X")
    };
    evidence.tokens = Ok(Tokens {
        tokens: vec![system],
        ..Tokens::default()
    });
    let bad: Vec<&str> = chain(&evidence)
        .iter()
        .filter(|link| link.status == Standing::Bad)
        .map(|link| link.name)
        .collect();
    assert_eq!(bad, ["token", "deployed"]);
}

#[test]
fn what_contradicts_a_proof_is_named() {
    let dead = Evidence {
        result: Ok(ProbeResult::Rejected),
        ..well()
    };
    let elsewhere = Evidence {
        result: Ok(ProbeResult::Accepted {
            cluster: "c-other".parse().ok(),
        }),
        ..well()
    };
    let second_tunnel = Evidence {
        record: Ok(Some(record("N", "O"))),
        ..well()
    };
    let late_pod = Evidence {
        pods: Ok(vec![pod("a", "N"), pod("b", "O")]),
        ..well()
    };
    let no_pod = Evidence {
        pods: Ok(Vec::new()),
        ..well()
    };
    let no_call = Evidence {
        call: Some(Err(Gap("no answer".into()))),
        ..well()
    };
    let all = [dead, elsewhere, second_tunnel, late_pod, no_pod, no_call];
    assert!(all.iter().all(|evidence| !is_proven(&proofs(evidence))));
    insta::assert_snapshot!(all.iter().map(odd).collect::<String>(), @r"
    Bad accepted: Rancher refuses 582d09e244
    Bad accepted: Rancher accepts 582d09e244, but as a token of cluster c-other
    Bad tunnels: the agent that connected last did so with 582d09e244, but the second tunnel is opened with 644d093c57; its Deployment gives it 582d09e244
    Bad pods: 2 of 2 pods of the agent run; 1 of them with another Secret
    Bad pods: 0 of 0 pods of the agent run
    Bad call: a fresh call through Rancher failed: no answer
    ");
}

#[test]
fn without_a_way_to_try_a_call_the_rest_still_proves() {
    let evidence = Evidence { call: None, ..well() };
    assert!(is_proven(&proofs(&evidence)));
}

#[test]
fn what_cannot_be_seen_is_not_called_bad_and_proves_nothing() {
    let gap = || Gap("there is no way to the downstream cluster".to_owned());
    let evidence = Evidence {
        deployment: Err(gap()),
        pods: Err(gap()),
        record: Err(gap()),
        credentials: Err(gap()),
        result: Err(gap()),
        call: None,
        ..well()
    };
    assert!(
        chain(&evidence).iter().all(|link| link.status != Standing::Bad),
        "{}",
        shown(&chain(&evidence))
    );
    assert!(!is_proven(&proofs(&evidence)));
}

#[test]
fn a_token_that_may_not_be_read_is_unknown_rather_than_nobodys() {
    let mut evidence = well();
    let system = RegistrationToken {
        value: Err(ValueError::NoPermission),
        ..system("N")
    };
    evidence.tokens = Ok(Tokens {
        tokens: vec![system],
        orphans_unknown: true,
        ..Tokens::default()
    });
    let link = |name| {
        chain(&evidence)
            .into_iter()
            .find(|link| link.name == name)
            .unwrap()
            .status
    };
    assert_eq!(
        (link("token"), link("deployed")),
        (Standing::Unknown, Standing::Unknown)
    );
}

#[test]
fn a_hold_and_a_roll_out_under_way_are_told() {
    let hold = Hold {
        min_ready_seconds: 1200,
        progress_deadline_seconds: 3600,
    };
    let held = Deployment {
        hold,
        updated_replicas: 0,
        ..deployment()
    };
    let evidence = Evidence {
        deployment: Ok(Some(held)),
        ..well()
    };
    insta::assert_snapshot!(odd(&evidence), @"Bad agent: Deployment cattle-cluster-agent has 1 of 1 pods available; its roll-out is under way; its roll-out is held (minReadySeconds 1200)");
}
