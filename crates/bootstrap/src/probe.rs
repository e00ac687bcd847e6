//! Probes an API server with a token: the only proof that it accepts or rejects the token.
//!
//! The API server caches that it accepted a token for 10 seconds, even if the token is deleted. It does not cache a rejection
//! (`TokenSuccessCacheTTL` in `pkg/kubeapiserver/options/authentication.go`, Kubernetes 1.36.3).

use client::error::Error;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};

use crate::token::TokenId;

/// What an API server answers to a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The token is accepted.
    Accepted {
        /// The user that it authenticates as. `None` before Kubernetes 1.28.
        user: Option<String>,
        /// The groups of the user.
        groups: Vec<String>,
    },
    /// The token is rejected (401).
    Rejected,
    /// Neither is proven, with the reason.
    Unknown(String),
}

impl ProbeResult {
    /// Whether the token is accepted.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }
}

/// Probes with a client whose only credential is the token with this id
/// ([`Connection::with_token`](client::connection::Connection::with_token)).
pub async fn probe(client: &kube::Client, id: &TokenId) -> ProbeResult {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    match reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
    {
        Ok(review) => {
            let info = review.status.and_then(|status| status.user_info).unwrap_or_default();
            of_user(id, info.username, info.groups.unwrap_or_default())
        }
        Err(kube::Error::Api(status)) if status.code == 403 => of_forbidden(id, &status.message),
        // Kubernetes before 1.28 does not serve it. The 404 can come before authentication, so it proves nothing.
        Err(kube::Error::Api(status)) if status.code == 404 => probe_before_1_28(client, id).await,
        Err(error) => of_error(error),
    }
}

/// Every Kubernetes answers this review to every authenticated user.
async fn probe_before_1_28(client: &kube::Client, id: &TokenId) -> ProbeResult {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some("/version".to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    match reviews.create(&PostParams::default(), &review).await {
        Ok(_) => ProbeResult::Accepted {
            user: None,
            groups: Vec::new(),
        },
        Err(kube::Error::Api(status)) if status.code == 403 => of_forbidden(id, &status.message),
        Err(error) => of_error(error),
    }
}

/// Only the token's own user is a proof: a proxy may have used its own login, and anonymous requests may be allowed.
fn of_user(id: &TokenId, user: Option<String>, groups: Vec<String>) -> ProbeResult {
    match user {
        Some(user) if user == id.user() => ProbeResult::Accepted {
            user: Some(user),
            groups,
        },
        Some(other) => ProbeResult::Unknown(format!("the server authenticated the request as {other:?}")),
        None => ProbeResult::Unknown("the server did not name the authenticated user".to_owned()),
    }
}

/// A 403 names the user, which was authenticated but has no permission.
fn of_forbidden(id: &TokenId, message: &str) -> ProbeResult {
    if message.contains(&format!("{:?}", id.user())) {
        return ProbeResult::Accepted {
            user: Some(id.user()),
            groups: Vec::new(),
        };
    }
    ProbeResult::Unknown("the server denied the request for another reason than the token".to_owned())
}

fn of_error(error: kube::Error) -> ProbeResult {
    match error {
        kube::Error::Api(status) if status.code == 401 => ProbeResult::Rejected,
        other => ProbeResult::Unknown(Error::from(other).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    /// A server with these responses to the two kinds of review.
    fn server(review: (u16, Value), before_1_28: (u16, Value)) -> kube::Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        tokio::spawn(async move {
            while let Some((request, answer)) = handle.next_request().await {
                let (code, body) = match request.uri().path() {
                    "/apis/authentication.k8s.io/v1/selfsubjectreviews" => &review,
                    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => &before_1_28,
                    _ => &(599, Value::Null),
                };
                let response = Response::builder().status(*code);
                answer.send_response(response.body(Body::from(body.to_string().into_bytes())).unwrap());
            }
        });
        kube::Client::new(service, "default")
    }

    fn review(user: &str) -> (u16, Value) {
        let info = json!({ "username": user, "groups": ["system:bootstrappers"] });
        (201, json!({ "metadata": {}, "status": { "userInfo": info } }))
    }

    fn status(code: u16, message: &str) -> (u16, Value) {
        let status = json!({ "kind": "Status", "status": "Failure", "code": code, "reason": "", "message": message });
        (code, status)
    }

    fn allowed() -> (u16, Value) {
        (
            201,
            json!({ "metadata": {}, "spec": {}, "status": { "allowed": false } }),
        )
    }

    const FORBIDDEN: &str = "x is forbidden: User \"system:bootstrap:abcdef\" cannot create resource";

    #[rstest]
    #[case::itself(review("system:bootstrap:abcdef"), allowed(), "accepted")]
    #[case::rejected(status(401, "Unauthorized"), allowed(), "rejected")]
    #[case::forbidden_is_no_rejection(status(403, FORBIDDEN), allowed(), "accepted")]
    #[case::before_1_28(status(404, "not found"), allowed(), "accepted")]
    #[case::before_1_28_and_rejected(status(404, "not found"), status(401, "Unauthorized"), "rejected")]
    #[case::before_1_28_and_forbidden(status(404, "not found"), status(403, FORBIDDEN), "accepted")]
    #[case::another_user(review("kubernetes-admin"), allowed(), "unknown")]
    #[case::anonymous(status(403, "User \"system:anonymous\" cannot create"), allowed(), "unknown")]
    #[case::broken(status(500, "no"), allowed(), "unknown")]
    #[tokio::test]
    async fn only_its_own_user_proves_acceptance_and_only_401_rejection(
        #[case] first: (u16, Value),
        #[case] second: (u16, Value),
        #[case] expected: &str,
    ) {
        let result = probe(&server(first, second), &"abcdef".parse().unwrap()).await;
        let word = match &result {
            ProbeResult::Accepted { .. } => "accepted",
            ProbeResult::Rejected => "rejected",
            ProbeResult::Unknown(_) => "unknown",
        };
        assert_eq!(word, expected, "{result:?}");
    }
}
