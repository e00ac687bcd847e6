//! Asks the API server about a token, with the token itself: the only proof that it works, or that it does not any more.
//!
//! A success is kept by the API server for 10 seconds, so that a token that was used, and is deleted, works on for that
//! long; a refusal is not kept (`TokenSuccessCacheTTL` of `pkg/kubeapiserver/options/authentication.go`, Kubernetes 1.36.3).

use client::error::Error as Shown;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};

use crate::token::TokenId;

/// What the API server says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is let in.
    Accepted {
        /// As whom; `None` where the server does not tell (before Kubernetes 1.28).
        user: Option<String>,
        /// In which groups.
        groups: Vec<String>,
    },
    /// 401.
    Refused,
    /// There was no answer, or none that proves anything; in a sentence.
    Unknown(String),
}

impl Answer {
    /// Whether it is let in.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }
}

/// Asks with a client that carries the token of this id and nothing else
/// ([`Connection::with_token`](client::connection::Connection::with_token)).
pub async fn ask(client: &kube::Client, id: &TokenId) -> Answer {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    match reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
    {
        Ok(review) => {
            let info = review.status.and_then(|status| status.user_info).unwrap_or_default();
            of_user(id, info.username, info.groups.unwrap_or_default())
        }
        // It knows who we are, and grants us nothing.
        Err(kube::Error::Api(status)) if status.code == 403 => of_stranger(id, &status.message),
        // Kubernetes before 1.28 does not serve it; 404 is said before or after the token is looked at.
        Err(kube::Error::Api(status)) if status.code == 404 => ask_older(client, id).await,
        Err(error) => of_error(error),
    }
}

/// The question that every Kubernetes answers to everybody who is let in.
async fn ask_older(client: &kube::Client, id: &TokenId) -> Answer {
    let question = SelfSubjectAccessReview {
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
    match reviews.create(&PostParams::default(), &question).await {
        Ok(_) => Answer::Accepted {
            user: None,
            groups: Vec::new(),
        },
        Err(kube::Error::Api(status)) if status.code == 403 => of_stranger(id, &status.message),
        Err(error) => of_error(error),
    }
}

/// A proxy in front may log in by itself, and anonymous requests may be let in: only the token's own user proves it.
fn of_user(id: &TokenId, user: Option<String>, groups: Vec<String>) -> Answer {
    match user {
        Some(user) if user == id.user() => Answer::Accepted {
            user: Some(user),
            groups,
        },
        Some(other) => Answer::Unknown(format!("the server took the token's bearer for {other:?}")),
        None => Answer::Unknown("the server did not say whom it took the token's bearer for".to_owned()),
    }
}

/// A 403 names the user that was let in and may do nothing.
fn of_stranger(id: &TokenId, message: &str) -> Answer {
    if message.contains(&format!("{:?}", id.user())) {
        return Answer::Accepted {
            user: Some(id.user()),
            groups: Vec::new(),
        };
    }
    Answer::Unknown("the server refused to answer, and not because of the token".to_owned())
}

fn of_error(error: kube::Error) -> Answer {
    match error {
        kube::Error::Api(status) if status.code == 401 => Answer::Refused,
        other => Answer::Unknown(Shown::from(other).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    /// A server that answers the first kind of question, and the second, with these.
    fn server(review: (u16, Value), older: (u16, Value)) -> kube::Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        tokio::spawn(async move {
            while let Some((request, answer)) = handle.next_request().await {
                let (code, body) = match request.uri().path() {
                    "/apis/authentication.k8s.io/v1/selfsubjectreviews" => &review,
                    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => &older,
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
    #[case::refused(status(401, "Unauthorized"), allowed(), "refused")]
    #[case::forbidden_is_no_refusal(status(403, FORBIDDEN), allowed(), "accepted")]
    #[case::older(status(404, "not found"), allowed(), "accepted")]
    #[case::older_and_refused(status(404, "not found"), status(401, "Unauthorized"), "refused")]
    #[case::older_and_forbidden(status(404, "not found"), status(403, FORBIDDEN), "accepted")]
    #[case::somebody_else(review("kubernetes-admin"), allowed(), "unknown")]
    #[case::anonymous(status(403, "User \"system:anonymous\" cannot create"), allowed(), "unknown")]
    #[case::broken(status(500, "no"), allowed(), "unknown")]
    #[tokio::test]
    async fn only_the_tokens_own_user_is_a_yes_and_only_401_is_a_no(
        #[case] first: (u16, Value),
        #[case] second: (u16, Value),
        #[case] expected: &str,
    ) {
        let answer = ask(&server(first, second), &"abcdef".parse().unwrap()).await;
        let word = match &answer {
            Answer::Accepted { .. } => "accepted",
            Answer::Refused => "refused",
            Answer::Unknown(_) => "unknown",
        };
        assert_eq!(word, expected, "{answer:?}");
    }
}
