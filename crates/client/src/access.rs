//! Permission checks before the first write.

use std::fmt;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};

use crate::connection::Server;
use crate::error::{Doing as _, Error, Kind};

/// The number of concurrent access reviews.
const AT_ONCE: usize = 8;

/// One right: a verb on a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Right {
    /// `get`, `list`, `watch`, `create`, `patch`, `delete`, …
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, plural.
    pub resource: String,
    /// The subresource, or empty.
    pub subresource: String,
    /// The namespace; empty for cluster-scoped resources and for "in all namespaces".
    pub namespace: String,
    /// The name; empty for any.
    pub name: String,
}

impl Right {
    /// A right on a resource of the whole cluster.
    pub fn new(verb: &str, group: &str, resource: &str) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Self {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            ..Self::default()
        }
    }

    /// Within one namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// On one object.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// The rule to add to a Role or ClusterRole.
    fn rule(&self) -> String {
        let names = if self.name.is_empty() {
            String::new()
        } else {
            format!(", resourceNames: [\"{}\"]", self.name)
        };
        let place = if self.namespace.is_empty() {
            "a ClusterRole".to_owned()
        } else {
            format!("a Role in namespace {}", self.namespace)
        };
        let (group, resource, verb) = (&self.group, self.path(), &self.verb);
        format!("in {place}: {{apiGroups: [\"{group}\"], resources: [\"{resource}\"]{names}, verbs: [\"{verb}\"]}}")
    }

    fn path(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }

    fn review(&self) -> SelfSubjectAccessReview {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: given(&self.verb),
                    group: given(&self.group),
                    resource: given(&self.resource),
                    subresource: given(&self.subresource),
                    namespace: given(&self.namespace),
                    name: given(&self.name),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        }
    }
}

impl fmt::Display for Right {
    /// `patch deployments.apps "cattle-cluster-agent" in namespace cattle-system`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        if !self.name.is_empty() {
            write!(f, " \"{}\"", self.name)?;
        }
        if !self.namespace.is_empty() {
            write!(f, " in namespace {}", self.namespace)?;
        }
        Ok(())
    }
}

/// The permissions that the current identity lacks, in the given order.
pub async fn missing(server: &Server, rights: &[Right]) -> Result<Vec<Right>, Error> {
    let api: Api<SelfSubjectAccessReview> = Api::all(server.client.clone());
    let answers: Vec<bool> = futures::stream::iter(rights.iter().map(Right::review))
        .map(|review| {
            let api = api.clone();
            async move {
                let answer = api.create(&PostParams::default(), &review).await;
                let answer = answer.doing("ask which rights are granted")?;
                Ok::<_, Error>(answer.status.is_some_and(|status| status.allowed))
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(rights
        .iter()
        .zip(answers)
        .filter(|(_, allowed)| !allowed)
        .map(|(right, _)| right.clone())
        .collect())
}

/// The rights that a command needs on one server.
pub struct Needed<'a> {
    /// The server.
    pub server: &'a Server,
    /// What it is called: "the downstream cluster".
    pub side: &'static str,
    /// The rights.
    pub rights: Vec<Right>,
}

/// Fails if any of these rights is missing, and names all that are. A hint for each names the rule to add.
pub async fn require(needed: &[Needed<'_>]) -> Result<(), Error> {
    let asked = needed.iter().map(|needed| async move {
        let missing = missing(needed.server, &needed.rights).await;
        missing.map_err(|error| error.doing(format!("check the rights on {}", needed.side)))
    });
    let missing = futures::future::try_join_all(asked).await?;
    let (mut sentences, mut rules) = (Vec::new(), Vec::new());
    for (Needed { side, .. }, missing) in needed.iter().zip(&missing) {
        let list: Vec<_> = missing.iter().map(Right::to_string).collect();
        if !list.is_empty() {
            sentences.push(format!("on {side} you may not: {}", list.join(", ")));
        }
        rules.extend(missing.iter().map(Right::rule));
    }
    if sentences.is_empty() {
        return Ok(());
    }
    let error = Error::new(Kind::Forbidden, sentences.join("; "));
    Err(rules
        .into_iter()
        .fold(error, |error, rule| error.hint(format!("the missing rule, {rule}"))))
}

/// The user that the API server authenticates the current login as: `system:bootstrap:07401b`,
/// `system:serviceaccount:a:b`, a name. With impersonation (`--as`) it is the impersonated user. `None` if the API
/// server does not serve SelfSubjectReviews (404, before Kubernetes 1.28) or does not allow them (403).
pub async fn current_user(client: &kube::Client) -> Result<Option<String>, Error> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await;
    match review {
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(None),
        review => {
            let user = review
                .doing("ask who is logged in")?
                .status
                .and_then(|status| status.user_info);
            Ok(user.and_then(|user| user.username).filter(|name| !name.is_empty()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ServerClock;

    /// An API server that grants reading and nothing else.
    fn server() -> Server {
        let (service, mut handle) =
            tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<kube::client::Body>>();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let asked: serde_json::Value =
                    serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
                let verb = asked["spec"]["resourceAttributes"]["verb"].as_str().unwrap().to_owned();
                let answer = serde_json::json!({ "spec": asked["spec"], "status": { "allowed": verb == "get" } });
                send.send_response(http::Response::new(answer.to_string().into_bytes().into()));
            }
        });
        Server {
            client: kube::Client::new(service, "default"),
            clock: ServerClock::default(),
            url: "https://x".parse().unwrap(),
            namespace: "default".into(),
        }
    }

    fn rights() -> Vec<Right> {
        vec![
            Right::new("patch", "apps", "deployments")
                .in_namespace("cattle-system")
                .named("agent"),
            Right::new("get", "", "secrets"),
            Right::new("create", "", "pods/eviction"),
        ]
    }

    #[tokio::test]
    async fn missing_permissions_keep_their_order() {
        let missing = missing(&server(), &rights()).await.unwrap();
        let shown: Vec<String> = missing.iter().map(Right::to_string).collect();
        assert_eq!(
            shown,
            [
                "patch deployments.apps \"agent\" in namespace cattle-system",
                "create pods/eviction"
            ]
        );
    }

    #[tokio::test]
    async fn an_error_names_the_sides_all_missing_permissions_and_the_rules() {
        let (above, below) = (server(), server());
        let on = |server, side, rights| Needed { server, side, rights };
        let granted = on(&above, "Rancher", vec![Right::new("get", "", "pods")]);
        require(std::slice::from_ref(&granted)).await.unwrap();
        let denied = on(&above, "the management cluster", vec![Right::new("list", "", "pods")]);
        let error = require(&[granted, denied, on(&below, "the downstream cluster", rights())])
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "error: on the management cluster you may not: list pods; \
             on the downstream cluster you may not: patch deployments.apps \"agent\" in namespace cattle-system, create pods/eviction"
        );
        assert_eq!(
            error.hints[1],
            "the missing rule, in a Role in namespace cattle-system: \
             {apiGroups: [\"apps\"], resources: [\"deployments\"], resourceNames: [\"agent\"], verbs: [\"patch\"]}"
        );
        assert_eq!(error.kind, Kind::Forbidden);
    }

    /// What [`current_user`] makes of an answer.
    async fn user_by(code: u16, answer: serde_json::Value) -> Result<Option<String>, Error> {
        let (service, mut handle) =
            tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<kube::client::Body>>();
        let client = kube::Client::new(service, "default");
        let server = async {
            let (request, send) = handle.next_request().await.unwrap();
            assert_eq!(request.uri(), "/apis/authentication.k8s.io/v1/selfsubjectreviews?");
            let response = http::Response::builder().status(code);
            send.send_response(response.body(answer.to_string().into_bytes().into()).unwrap());
        };
        tokio::join!(current_user(&client), server).0
    }

    #[tokio::test]
    async fn current_user_is_read_from_the_review() {
        let info = serde_json::json!({ "status": { "userInfo": { "username": "system:bootstrap:07401b" } } });
        assert_eq!(
            user_by(201, info).await.unwrap().as_deref(),
            Some("system:bootstrap:07401b")
        );
        assert_eq!(user_by(201, serde_json::json!({})).await.unwrap(), None);
        let unnamed = serde_json::json!({ "status": { "userInfo": { "username": "" } } });
        assert_eq!(user_by(201, unnamed).await.unwrap(), None);
    }

    #[tokio::test]
    async fn current_user_is_none_if_the_review_is_not_served() {
        let status =
            |code: u16| serde_json::json!({ "kind": "Status", "status": "Failure", "code": code, "message": "no" });
        assert_eq!(user_by(403, status(403)).await.unwrap(), None);
        assert_eq!(user_by(404, status(404)).await.unwrap(), None);
        for code in [401, 500] {
            let error = user_by(code, status(code)).await.unwrap_err().to_string();
            assert!(error.contains("ask who is logged in"), "{error}");
        }
    }
}
