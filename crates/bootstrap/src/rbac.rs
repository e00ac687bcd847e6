//! What a node needs to join with a token and nothing else, and what a group of bootstrappers has beyond that.
//!
//! Three bindings, of ClusterRoles that every cluster has (documentation of Kubernetes, "TLS bootstrapping"): the group may
//! ask for a certificate, its first one is approved by itself, and so is each renewal of any node. kubeadm makes the same
//! three for its own group, under its own names, so a binding is known by what it binds and not by its name.

use client::request::{self, ListOptions, Resource, Verb, Write};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use kube::api::{Api, PostParams};
use serde::Serialize;
use serde_json::json;

use crate::error::Result;
use crate::judge::EVERY_TOKEN;
use crate::token::TokenId;

/// The group of all nodes, which renew their certificates.
pub(crate) const NODES: &str = "system:nodes";
const API_GROUP: &str = "rbac.authorization.k8s.io";
const CLUSTER_ROLE_BINDING: Resource = Resource::new(
    "ClusterRoleBinding",
    "rbac.authorization.k8s.io/v1",
    "clusterrolebindings",
);
const ROLE_BINDING: Resource = Resource::new("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings");

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// The group may create and watch certificate signing requests.
    Request,
    /// The first certificate of a node is approved by itself.
    FirstCertificate,
    /// Renewals of nodes are approved by themselves.
    Renewal,
}

impl Grant {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Request, Self::FirstCertificate, Self::Renewal];

    /// The ClusterRole.
    pub fn role(self) -> &'static str {
        match self {
            Self::Request => "system:node-bootstrapper",
            Self::FirstCertificate => "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            Self::Renewal => "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        }
    }

    /// Whom it is for, where the tokens are in `group`.
    pub fn subject(self, group: &str) -> &str {
        match self {
            Self::Request | Self::FirstCertificate => group,
            Self::Renewal => NODES,
        }
    }

    /// What it is for.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Request => "ask for a certificate",
            Self::FirstCertificate => "have the first certificate approved",
            Self::Renewal => "have renewals approved",
        }
    }

    /// The name of a binding that is made here. It says whose it is, so that two groups do not share one.
    pub fn binding_name(self, group: &str) -> String {
        match self {
            Self::Request => format!("bootstrap-token:node-bootstrapper:{group}"),
            Self::FirstCertificate => format!("bootstrap-token:nodeclient:{group}"),
            Self::Renewal => format!("bootstrap-token:selfnodeclient:{NODES}"),
        }
    }

    fn binding(self, group: &str) -> ClusterRoleBinding {
        let mut binding = ClusterRoleBinding {
            role_ref: RoleRef {
                api_group: API_GROUP.to_owned(),
                kind: "ClusterRole".to_owned(),
                name: self.role().to_owned(),
            },
            subjects: Some(vec![Subject {
                api_group: Some(API_GROUP.to_owned()),
                kind: "Group".to_owned(),
                name: self.subject(group).to_owned(),
                namespace: None,
            }]),
            ..ClusterRoleBinding::default()
        };
        binding.metadata.name = Some(self.binding_name(group));
        binding
    }
}

/// One of the three, and the binding that gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Which.
    pub grant: Grant,
    /// The name of the first ClusterRoleBinding that gives it; `None`: nothing does.
    pub by: Option<String>,
}

/// A binding that gives tokens more than they need to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Excess {
    /// `ClusterRoleBinding` or `RoleBinding`.
    pub kind: &'static str,
    /// Its namespace; `None` for a ClusterRoleBinding.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The role, with its kind: `ClusterRole cluster-admin`.
    pub role: String,
    /// The group of bootstrappers that gets it.
    pub group: String,
}

/// What the cluster grants.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The three, for the group that was asked about.
    pub given: [Given; 3],
    /// What *any* group of bootstrappers has besides.
    pub excess: Vec<Excess>,
    /// RoleBindings may not be listed: excess in namespaces is unknown.
    pub namespaces_unknown: bool,
}

impl Survey {
    /// Those of the three that nothing gives.
    pub fn missing(&self) -> Vec<Grant> {
        self.given
            .iter()
            .filter(|given| given.by.is_none())
            .map(|given| given.grant)
            .collect()
    }
}

/// Reads every binding that concerns tokens.
pub async fn survey(client: &kube::Client, group: &str) -> Result<Survey> {
    let all = ListOptions::default();
    let (everywhere, within) = tokio::join!(
        request::list_all::<ClusterRoleBinding>(client, CLUSTER_ROLE_BINDING, &all),
        request::list_all::<RoleBinding>(client, ROLE_BINDING, &all)
    );
    let (within, namespaces_unknown) = match within {
        Err(error) if error.is_forbidden() => (Vec::new(), true),
        other => (other?, false),
    };
    let mut all: Vec<Bound> = everywhere?.into_iter().map(Bound::everywhere).collect();
    all.extend(within.into_iter().map(Bound::within));
    let given = Grant::ALL.map(|grant| Given {
        grant,
        by: all
            .iter()
            .find(|bound| bound.gives(grant, group))
            .map(|bound| bound.name.clone()),
    });
    Ok(Survey {
        given,
        excess: all.iter().flat_map(Bound::excess).collect(),
        namespaces_unknown,
    })
}

/// Makes the binding of one grant. One that stands there already under that name is an error
/// ([`Error::is_already_exists`](crate::Error::is_already_exists)): it binds something else, or [`survey`] would have seen it.
pub async fn apply(client: &kube::Client, grant: Grant, group: &str, write: &Write) -> Result<String> {
    let name = grant.binding_name(group);
    let binding = json!(grant.binding(group));
    let _: ClusterRoleBinding = request::create(client, CLUSTER_ROLE_BINDING, None, &name, &binding, write).await?;
    Ok(name)
}

/// Whether a token of these groups may ask for a certificate, and gets it approved: by the API server's own word, which
/// knows of every binding, and of webhooks.
pub async fn may_join(client: &kube::Client, id: &TokenId, groups: &[String]) -> Result<[bool; 2]> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let all = [EVERY_TOKEN, "system:authenticated"].into_iter().map(str::to_owned);
    let all: Vec<String> = groups.iter().cloned().chain(all).collect();
    let ask = async |subresource: Option<&str>| {
        let question = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(id.user()),
                groups: Some(all.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some("create".to_owned()),
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    subresource: subresource.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = api.create(&PostParams::default(), &question).await;
        let rights = || format!("the rights of {}", id.user());
        let answer = answer.map_err(|error| request::Error::failed(Verb::Ask, rights(), error))?;
        Ok::<_, request::Error>(answer.status.is_some_and(|status| status.allowed))
    };
    let (request, approval) = tokio::join!(ask(None), ask(Some("nodeclient")));
    Ok([request?, approval?])
}

/// A binding of either kind.
struct Bound {
    namespace: Option<String>,
    name: String,
    role: RoleRef,
    groups: Vec<String>,
}

impl Bound {
    fn everywhere(binding: ClusterRoleBinding) -> Self {
        Self {
            namespace: None,
            name: binding.metadata.name.unwrap_or_default(),
            role: binding.role_ref,
            groups: groups(binding.subjects),
        }
    }

    fn within(binding: RoleBinding) -> Self {
        Self {
            namespace: Some(binding.metadata.namespace.unwrap_or_default()),
            name: binding.metadata.name.unwrap_or_default(),
            role: binding.role_ref,
            groups: groups(binding.subjects),
        }
    }

    /// The group of every token gives it to this group's too.
    fn gives(&self, grant: Grant, group: &str) -> bool {
        let to = |name: &str| self.groups.iter().any(|bound| bound == name);
        let subject = grant.subject(group);
        let reaches = to(subject) || (grant != Grant::Renewal && to(EVERY_TOKEN));
        self.namespace.is_none() && self.role.kind == "ClusterRole" && self.role.name == grant.role() && reaches
    }

    fn excess(&self) -> Vec<Excess> {
        if self.is_needed() {
            return Vec::new();
        }
        let of_tokens = |group: &&String| *group == EVERY_TOKEN || group.starts_with("system:bootstrappers:");
        let excess = |group: &String| Excess {
            kind: if self.namespace.is_some() {
                "RoleBinding"
            } else {
                "ClusterRoleBinding"
            },
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            role: format!("{} {}", self.role.kind, self.role.name),
            group: group.clone(),
        };
        self.groups.iter().filter(of_tokens).map(excess).collect()
    }

    /// What a node needs to join, `kubeadm join` included. (`cmd/kubeadm/app/phases/bootstraptoken`, `uploadconfig`,
    /// `kubelet` and `addons/proxy` of kubernetes/kubernetes v1.36.3.)
    fn is_needed(&self) -> bool {
        let role = (self.role.kind.as_str(), self.role.name.as_str());
        match self.namespace.as_deref() {
            None => {
                role == ("ClusterRole", Grant::Request.role())
                    || role == ("ClusterRole", Grant::FirstCertificate.role())
                    || role == ("ClusterRole", "kubeadm:get-nodes")
            }
            Some("kube-system") => {
                let known = ["kubeadm:nodes-kubeadm-config", "kubeadm:kubelet-config", "kube-proxy"];
                role.0 == "Role" && known.contains(&role.1)
            }
            Some("kube-public") => role == ("Role", "kubeadm:bootstrap-signer-clusterinfo"),
            Some(_) => false,
        }
    }
}

fn groups(subjects: Option<Vec<Subject>>) -> Vec<String> {
    let subjects = subjects.unwrap_or_default().into_iter();
    subjects
        .filter(|subject| subject.kind == "Group")
        .map(|subject| subject.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(namespace: Option<&str>, role: (&str, &str), group: &str) -> Bound {
        Bound {
            namespace: namespace.map(str::to_owned),
            name: "some".to_owned(),
            role: RoleRef {
                api_group: API_GROUP.to_owned(),
                kind: role.0.to_owned(),
                name: role.1.to_owned(),
            },
            groups: vec!["somebody".to_owned(), group.to_owned()],
        }
    }

    const OURS: &str = "system:bootstrappers:ours";

    #[test]
    fn what_is_made_is_recognised() {
        for grant in Grant::ALL {
            let made = Bound::everywhere(grant.binding(OURS));
            assert!(made.gives(grant, OURS));
            assert_eq!(made.excess(), []);
        }
    }

    #[test]
    fn a_binding_of_every_token_serves_each_group_and_one_of_another_group_does_not() {
        let role = ("ClusterRole", Grant::Request.role());
        assert!(bound(None, role, EVERY_TOKEN).gives(Grant::Request, OURS));
        assert!(!bound(None, role, "system:bootstrappers:theirs").gives(Grant::Request, OURS));
        assert!(!bound(Some("kube-system"), role, OURS).gives(Grant::Request, OURS));
        let renewal = ("ClusterRole", Grant::Renewal.role());
        assert!(!bound(None, renewal, EVERY_TOKEN).gives(Grant::Renewal, OURS));
        assert!(bound(None, renewal, NODES).gives(Grant::Renewal, OURS));
    }

    #[test]
    fn more_than_joining_is_excess() {
        let admin = bound(None, ("ClusterRole", "cluster-admin"), OURS).excess();
        assert_eq!(admin.len(), 1);
        assert_eq!(
            (admin[0].role.as_str(), admin[0].group.as_str()),
            ("ClusterRole cluster-admin", OURS)
        );
        let certificates = bound(Some("kube-system"), ("Role", "kubeadm:kubeadm-certs"), OURS);
        assert_eq!(certificates.excess()[0].kind, "RoleBinding");
        assert_eq!(bound(None, ("ClusterRole", "kubeadm:get-nodes"), OURS).excess(), []);
        assert_eq!(bound(Some("kube-system"), ("Role", "kube-proxy"), OURS).excess(), []);
        // A group that only looks like one.
        assert_eq!(
            bound(None, ("ClusterRole", "view"), "system:bootstrappersx").excess(),
            []
        );
    }
}
