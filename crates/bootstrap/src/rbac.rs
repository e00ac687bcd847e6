//! The bindings that a node needs to join with a token, and bindings that grant tokens more than that.
//!
//! Three ClusterRoles have to be bound (Kubernetes documentation, "TLS bootstrapping"): to request a certificate, to have the first
//! certificate approved, and to have renewals approved. kubeadm binds the same three to its own group under other names, so a
//! binding is identified by its role and subject.

use client::request::{self, ListOptions, Resource, Verb, Write};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use kube::api::{Api, PostParams};
use serde::Serialize;
use serde_json::json;

use crate::error::Result;
use crate::token::TokenId;
use crate::validation::BOOTSTRAPPERS;

/// The group of all nodes, which renew their certificates.
const NODES: &str = "system:nodes";
const API_GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";
const CLUSTER_ROLE_BINDING: Resource = Resource::new("ClusterRoleBinding", VERSION, "clusterrolebindings");
const ROLE_BINDING: Resource = Resource::new("RoleBinding", VERSION, "rolebindings");

/// One of the three permissions that joining needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// To create and watch certificate signing requests.
    Request,
    /// To have the first certificate of a node approved.
    FirstCertificate,
    /// To have renewals approved.
    Renewal,
}

impl Grant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Request, Self::FirstCertificate, Self::Renewal];

    /// The ClusterRole to bind.
    pub fn role(self) -> &'static str {
        match self {
            Self::Request => "system:node-bootstrapper",
            Self::FirstCertificate => "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            Self::Renewal => "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        }
    }

    /// The group to bind it to, for tokens in `group`.
    pub fn subject(self, group: &str) -> &str {
        match self {
            Self::Request | Self::FirstCertificate => group,
            Self::Renewal => NODES,
        }
    }

    /// The purpose, as a verb phrase.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Request => "request a certificate",
            Self::FirstCertificate => "have the first certificate approved",
            Self::Renewal => "have renewals approved",
        }
    }

    /// The name of the binding that [`apply`] creates.
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

/// Whether a grant is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantStatus {
    /// The grant.
    pub grant: Grant,
    /// The name of the first ClusterRoleBinding that grants it.
    pub binding: Option<String>,
}

/// A binding that grants tokens more than they need to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExcessiveBinding {
    /// `ClusterRoleBinding` or `RoleBinding`.
    pub kind: &'static str,
    /// Its namespace; `None` for a ClusterRoleBinding.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The role, with its kind: `ClusterRole cluster-admin`.
    pub role: String,
    /// The group of tokens that it is bound to.
    pub group: String,
}

/// The bindings of a cluster that concern tokens.
#[derive(Clone, Debug)]
pub struct Bindings {
    /// The grants for one group.
    pub grants: [GrantStatus; 3],
    /// Excessive bindings for *any* group of tokens.
    pub excess: Vec<ExcessiveBinding>,
    /// There is no permission to list RoleBindings, so excessive ones are unknown.
    pub namespaces_unknown: bool,
}

impl Bindings {
    /// Whether all grants are bound.
    pub fn is_complete(&self) -> bool {
        self.grants.iter().all(|status| status.binding.is_some())
    }
}

/// Reads the bindings that concern tokens.
pub async fn read(client: &kube::Client, group: &str) -> Result<Bindings> {
    let all = ListOptions::default();
    let (cluster, namespaced) = tokio::join!(
        request::list_all::<ClusterRoleBinding>(client, CLUSTER_ROLE_BINDING, &all),
        request::list_all::<RoleBinding>(client, ROLE_BINDING, &all)
    );
    let (namespaced, namespaces_unknown) = match namespaced {
        Err(error) if error.is_forbidden() => (Vec::new(), true),
        other => (other?, false),
    };
    let mut all: Vec<Binding> = cluster?.into_iter().map(Binding::from).collect();
    all.extend(namespaced.into_iter().map(Binding::from));
    let status = |grant| {
        let binding = all.iter().find(|binding| binding.grants(grant, group));
        let binding = binding.map(|binding| binding.name.clone());
        GrantStatus { grant, binding }
    };
    Ok(Bindings {
        grants: Grant::ALL.map(status),
        excess: all.iter().flat_map(Binding::excess).collect(),
        namespaces_unknown,
    })
}

/// Creates the binding of a grant. It is an error if a binding of that name exists
/// ([`Error::is_already_exists`](crate::Error::is_already_exists)).
pub async fn apply(client: &kube::Client, grant: Grant, group: &str, write: &Write) -> Result<String> {
    let name = grant.binding_name(group);
    let binding = json!(grant.binding(group));
    let _: ClusterRoleBinding = request::create(client, CLUSTER_ROLE_BINDING, None, &name, &binding, write).await?;
    Ok(name)
}

/// Asks the API server whether a token in these groups may request a certificate, and gets it approved. Unlike [`read`], this
/// includes other bindings and webhooks.
pub async fn may_join(client: &kube::Client, id: &TokenId, groups: &[String]) -> Result<[bool; 2]> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let all = [BOOTSTRAPPERS, "system:authenticated"].into_iter().map(str::to_owned);
    let all: Vec<String> = groups.iter().cloned().chain(all).collect();
    let review = async |subresource: Option<&str>| {
        let review = SubjectAccessReview {
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
        let response = api.create(&PostParams::default(), &review).await;
        let permissions = || format!("the permissions of {}", id.user());
        let response = response.map_err(|error| request::Error::failed(Verb::Ask, permissions(), error))?;
        Ok::<_, request::Error>(response.status.is_some_and(|status| status.allowed))
    };
    let (request, approval) = tokio::join!(review(None), review(Some("nodeclient")));
    Ok([request?, approval?])
}

/// A ClusterRoleBinding or RoleBinding.
struct Binding {
    namespace: Option<String>,
    name: String,
    role: RoleRef,
    groups: Vec<String>,
}

impl From<ClusterRoleBinding> for Binding {
    fn from(binding: ClusterRoleBinding) -> Self {
        Self::new(None, binding.metadata.name, binding.role_ref, binding.subjects)
    }
}

impl From<RoleBinding> for Binding {
    fn from(binding: RoleBinding) -> Self {
        let namespace = Some(binding.metadata.namespace.unwrap_or_default());
        Self::new(namespace, binding.metadata.name, binding.role_ref, binding.subjects)
    }
}

impl Binding {
    fn new(namespace: Option<String>, name: Option<String>, role: RoleRef, subjects: Option<Vec<Subject>>) -> Self {
        let groups = subjects.unwrap_or_default().into_iter();
        let groups = groups.filter(|subject| subject.kind == "Group");
        Self {
            namespace,
            name: name.unwrap_or_default(),
            role,
            groups: groups.map(|subject| subject.name).collect(),
        }
    }

    /// A binding to `system:bootstrappers` includes every group of tokens.
    fn grants(&self, grant: Grant, group: &str) -> bool {
        let to = |name: &str| self.groups.iter().any(|group| group == name);
        let subject = grant.subject(group);
        let is_bound = to(subject) || (grant != Grant::Renewal && to(BOOTSTRAPPERS));
        self.namespace.is_none() && self.role.kind == "ClusterRole" && self.role.name == grant.role() && is_bound
    }

    fn excess(&self) -> Vec<ExcessiveBinding> {
        if self.is_needed() {
            return Vec::new();
        }
        let of_tokens = |group: &&String| *group == BOOTSTRAPPERS || group.starts_with("system:bootstrappers:");
        let excess = |group: &String| ExcessiveBinding {
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

    /// Whether joining needs it, `kubeadm join` included (`bootstraptoken`, `uploadconfig`, `kubelet` and `addons/proxy` in
    /// `cmd/kubeadm/app/phases` of kubernetes/kubernetes v1.36.3).
    fn is_needed(&self) -> bool {
        let role = (self.role.kind.as_str(), self.role.name.as_str());
        match self.namespace.as_deref() {
            None => {
                role == ("ClusterRole", Grant::Request.role())
                    || role == ("ClusterRole", Grant::FirstCertificate.role())
                    || role == ("ClusterRole", "kubeadm:get-nodes")
            }
            Some("kube-system") => {
                let needed = ["kubeadm:nodes-kubeadm-config", "kubeadm:kubelet-config", "kube-proxy"];
                role.0 == "Role" && needed.contains(&role.1)
            }
            Some("kube-public") => role == ("Role", "kubeadm:bootstrap-signer-clusterinfo"),
            Some(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(namespace: Option<&str>, role: (&str, &str), group: &str) -> Binding {
        Binding {
            namespace: namespace.map(str::to_owned),
            name: "some".to_owned(),
            role: RoleRef {
                api_group: API_GROUP.to_owned(),
                kind: role.0.to_owned(),
                name: role.1.to_owned(),
            },
            groups: vec!["other".to_owned(), group.to_owned()],
        }
    }

    const OURS: &str = "system:bootstrappers:ours";

    #[test]
    fn created_bindings_are_recognized() {
        for grant in Grant::ALL {
            let created = Binding::from(grant.binding(OURS));
            assert!(created.grants(grant, OURS));
            assert_eq!(created.excess(), []);
        }
    }

    #[test]
    fn a_binding_to_system_bootstrappers_includes_each_group() {
        let role = ("ClusterRole", Grant::Request.role());
        assert!(bound(None, role, BOOTSTRAPPERS).grants(Grant::Request, OURS));
        assert!(!bound(None, role, "system:bootstrappers:theirs").grants(Grant::Request, OURS));
        assert!(!bound(Some("kube-system"), role, OURS).grants(Grant::Request, OURS));
        let renewal = ("ClusterRole", Grant::Renewal.role());
        assert!(!bound(None, renewal, BOOTSTRAPPERS).grants(Grant::Renewal, OURS));
        assert!(bound(None, renewal, NODES).grants(Grant::Renewal, OURS));
    }

    #[test]
    fn bindings_that_joining_does_not_need_are_excessive() {
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
        // Another group with the same beginning.
        assert_eq!(
            bound(None, ("ClusterRole", "view"), "system:bootstrappersx").excess(),
            []
        );
    }
}
