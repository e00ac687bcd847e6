//! Why Rancher rejects the token of a cluster Secret, and what to do about a failed check: one sentence and one command or action each.

use argocd::{ClusterConfig, ClusterSecret};
use client::secret::Secret;
use k8s_openapi::jiff::Timestamp;
use rancher::ClusterId;
use rancher::api_token::Credential;
use rancher::api_token::proof::CallResult;

use crate::connections::{Argo, Rancher};
use crate::hints::Hints;
use crate::token_check::{TokenCheck, TokenResults};
use crate::token_facts::TokenFacts;

/// The roles that Argo CD needs.
pub(crate) const ROLES: &str = "give its owner the role cluster-owner, or one with get, list and watch on everything";

/// Why Rancher rejects a token, where more is known than Rancher tells.
pub(crate) async fn cause(
    argo: &Argo,
    rancher: Option<&Rancher>,
    (cluster, id, config): (&ClusterSecret, &ClusterId, &ClusterConfig),
    token: &Secret,
    facts: &TokenFacts<'_>,
    now: Timestamp,
) -> Option<String> {
    let of_kind = match Credential::of(token) {
        Credential::ServiceAccount => Some(
            "it is the token of a ServiceAccount, which Rancher accepts only if JWT authentication is enabled for the cluster \
             (ClusterProxyConfig)",
        ),
        Credential::Unknown => {
            Some("it is not a Rancher API token, which has a name before a colon, as in token-abcde:…")
        }
        Credential::Api(_) | Credential::Ext(_) => None,
    };
    if let Some(text) = of_kind {
        return Some(text.to_owned());
    }
    if let Some(why) = facts.why_rejected(id, now) {
        return Some(why);
    }
    let prefixed = Secret::new(format!("ext/{}", token.expose()));
    let result = TokenCheck::of(cluster, config, &prefixed)
        .at_rancher(argo, rancher)
        .await;
    let lacks_prefix = result.is_ok_and(|result| result.is_valid());
    lacks_prefix.then(|| "it is a token of ext.cattle.io without its prefix ext/".to_owned())
}

/// What to do about the results of the calls. `None`: nothing.
pub(crate) fn of_results(
    cluster: &ClusterSecret,
    id: &ClusterId,
    results: &TokenResults,
    hints: &Hints,
) -> Option<String> {
    let failed = [Some(&results.rancher), results.proxy.as_ref()];
    let failed = failed.into_iter().flatten().find(|result| !result.is_accepted());
    let Some(failed) = failed else {
        return match results.missing.as_ref()? {
            Ok(missing) if missing.is_empty() => None,
            Ok(_) => Some(ROLES.to_owned()),
            Err(_) => Some("run the same command again".to_owned()),
        };
    };
    let secret = &cluster.object.name;
    Some(match failed {
        CallResult::Rejected => replace(id, hints),
        CallResult::NotAMember { user } => {
            let user = user.as_deref().unwrap_or("who owns it");
            format!(
                "in Rancher, add user {user} to cluster {id} with the role cluster-owner, or one with get, list and watch on everything"
            )
        }
        CallResult::NoDownstreamPermission { .. } => ROLES.to_owned(),
        CallResult::ClusterGone => {
            let remove = hints.with_rancher("remove", secret);
            format!("{remove} removes the cluster from Argo CD")
        }
        CallResult::Redirected { .. } => {
            let rotate = hints.with_flag("rotate", secret, "--unscoped");
            format!("{rotate} issues a token that is not limited to the cluster")
        }
        CallResult::AgentOffline | CallResult::NoAnswer { .. } => {
            "check the pods with label app=cattle-cluster-agent in namespace cattle-system of that cluster".to_owned()
        }
        _ => format!(
            "check that {} can be reached, then run the same command again",
            cluster.server
        ),
    })
}

/// Replaces the token in a Secret.
pub(crate) fn replace(id: &ClusterId, hints: &Hints) -> String {
    format!("{} replaces the token", hints.with_rancher("add", id.as_str()))
}

#[cfg(test)]
mod tests {
    use cli::app::GlobalFlags;
    use client::access::Right;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::connections::RancherFlags;
    use crate::fixtures;

    fn remedy(rancher: CallResult, proxy: Option<CallResult>, missing: Option<Vec<Right>>) -> Option<String> {
        let flags = RancherFlags {
            rancher_context: Some("rancher".into()),
            ..RancherFlags::default()
        };
        let hints = Hints::new(&flags, &GlobalFlags::default(), "argocd");
        let cluster = fixtures::cluster("one", &fixtures::config("token-x7k2p"), ObjectMeta::default());
        let results = TokenResults {
            rancher,
            proxy,
            missing: missing.map(Ok),
        };
        of_results(&cluster, &"c-abcde".parse().unwrap(), &results, &hints)
    }

    fn works() -> CallResult {
        CallResult::Accepted { kubernetes: None }
    }

    #[test]
    fn each_failure_has_one_next_step() {
        let of_rancher = |result| remedy(result, None, None).unwrap();
        assert_eq!(
            of_rancher(CallResult::Rejected),
            "`kubectl argocd-rancher add c-abcde --rancher-context rancher` replaces the token"
        );
        assert_eq!(
            of_rancher(CallResult::ClusterGone),
            "`kubectl argocd-rancher remove one --rancher-context rancher` removes the cluster from Argo CD"
        );
        let user = Some("u-x7k2p".to_owned());
        assert!(of_rancher(CallResult::NotAMember { user }).contains("add user u-x7k2p to cluster c-abcde"));
        let offline = remedy(works(), Some(CallResult::AgentOffline), None).unwrap();
        assert!(offline.contains("cattle-cluster-agent"), "{offline}");
        let missing = vec![Right::new("list", "", "nodes")];
        assert_eq!(remedy(works(), Some(works()), Some(missing)).as_deref(), Some(ROLES));
        assert_eq!(remedy(works(), Some(works()), Some(Vec::new())), None);
    }
}
