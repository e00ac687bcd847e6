//! The other writers of an object: the owner that would restore an old state, and the last field manager.
//!
//! An owner is identified by the marks that its controller puts on what it applies. `managedFields` alone never make an
//! owner, because every write leaves an entry there: kubectl's, and those of the product that the object belongs to. They
//! only name the writer.
//!
//! Both functions need the whole metadata, as [`request::get_metadata`](crate::request::get_metadata) reads it.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::sanitize;

/// The longest name of an object. Annotations may be longer, and are cut.
const LONGEST_NAME: usize = 253;

/// An owner of an object's desired state, which reverts the changes of others.
///
/// All names come from the API. They are safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The object that an ownerReference with `controller: true` names.
    Controller {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// An ExternalSecret of External Secrets Operator; `None` if the marks do not name it.
    ExternalSecret(Option<String>),
    /// A SealedSecret of Sealed Secrets; `None` if the marks do not name it.
    SealedSecret(Option<String>),
    /// An Application of Argo CD.
    ArgocdApplication(String),
    /// A Kustomization of Flux, as `namespace/name`.
    FluxKustomization(String),
    /// A HelmRelease of Flux, as `namespace/name`.
    FluxHelmRelease(String),
    /// A bundle of Fleet, by the name of its BundleDeployment and the agent's scope.
    FleetBundle(String),
    /// A manifest on the nodes of K3s or RKE2, as `namespace/name` of its Addon.
    Addon(String),
    /// A set of objects that a controller applies with Rancher's wrangler.
    ObjectSet {
        /// Which of the controller's sets; empty if it has only one for each owner.
        id: String,
        /// What the set belongs to, as kind and name; `None` if it belongs to no object.
        of: Option<String>,
    },
    /// A Helm release.
    HelmRelease {
        /// The release; `None` for a hook, which only has the chart's own labels.
        name: Option<String>,
        /// The namespace that the release is kept in.
        namespace: Option<String>,
    },
}

impl fmt::Display for Owner {
    /// As in a sentence: `Argo CD application "payments"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller { kind, name } => write!(f, "the controller {kind}/{name} (ownerReference)"),
            Self::ExternalSecret(Some(name)) => write!(f, "ExternalSecret {name}"),
            Self::ExternalSecret(None) => f.write_str("an ExternalSecret"),
            Self::SealedSecret(Some(name)) => write!(f, "SealedSecret {name}"),
            Self::SealedSecret(None) => f.write_str("a SealedSecret"),
            Self::ArgocdApplication(name) => write!(f, "Argo CD application \"{name}\""),
            Self::FluxKustomization(name) => write!(f, "Flux Kustomization {name}"),
            Self::FluxHelmRelease(name) => write!(f, "Flux HelmRelease {name}"),
            Self::FleetBundle(name) => write!(f, "Fleet bundle {name}"),
            Self::Addon(name) => write!(f, "the K3s Addon {name}"),
            Self::ObjectSet { id, of } => {
                f.write_str("objectset")?;
                if !id.is_empty() {
                    write!(f, " {id}")?;
                }
                of.as_ref().map_or(Ok(()), |of| write!(f, " of {of}"))
            }
            Self::HelmRelease { name: None, .. } => f.write_str("a Helm chart"),
            Self::HelmRelease {
                name: Some(name),
                namespace,
            } => {
                write!(f, "Helm release {name}")?;
                namespace
                    .as_ref()
                    .map_or(Ok(()), |namespace| write!(f, " (namespace {namespace})"))
            }
        }
    }
}

/// The owner of an object, or `None` if it has no marks of an owner. Of several owners, it is the one that writes this
/// very object: External Secrets Operator copies the marks of Argo CD and Flux from an ExternalSecret to its Secret.
pub fn owner(metadata: &ObjectMeta) -> Option<Owner> {
    let readers = [
        referenced,
        external_secret,
        sealed_secret,
        argocd,
        flux,
        object_set,
        helm,
    ];
    readers.iter().find_map(|read| read(metadata))
}

/// An ownerReference without `controller` only determines garbage collection. (Rancher's token Secrets have one, and so
/// may Secrets that were created manually.)
fn referenced(metadata: &ObjectMeta) -> Option<Owner> {
    let owner_of = |reference: &OwnerReference| {
        let name = shown(&reference.name);
        match reference.kind.as_str() {
            "ExternalSecret" => Some(Owner::ExternalSecret(Some(name))),
            "SealedSecret" => Some(Owner::SealedSecret(Some(name))),
            kind if reference.controller == Some(true) => Some(Owner::Controller {
                kind: shown(kind),
                name,
            }),
            _ => None,
        }
    };
    metadata.owner_references.iter().flatten().find_map(owner_of)
}

/// Without an ownerReference where the ExternalSecret has `creationPolicy: Merge` or `Orphan`.
/// (`apis/externalsecrets/v1/externalsecret_types.go` of External Secrets Operator v2.9.0; releases before 0.11 had only
/// the annotation.)
fn external_secret(metadata: &ObjectMeta) -> Option<Owner> {
    let managed = label(metadata, "reconcile.external-secrets.io/managed") == Some("true");
    let hashed = annotation(metadata, "reconcile.external-secrets.io/data-hash").is_some();
    (managed || hashed).then_some(Owner::ExternalSecret(None))
}

/// Without an ownerReference where `skip-set-owner-references`, `managed` or `patch` is set.
/// (`pkg/apis/sealedsecrets/v1alpha1/types.go` of Sealed Secrets v0.36.6.)
fn sealed_secret(metadata: &ObjectMeta) -> Option<Owner> {
    let mut annotations = metadata.annotations.iter().flatten();
    annotations
        .any(|(key, value)| key.starts_with("sealedsecrets.bitnami.com/") && value == "true")
        .then_some(Owner::SealedSecret(None))
}

/// By the tracking id, by the label that Argo CD's documentation suggests for tracking by label, or by the label that it
/// uses by default then.
///
/// That last one, `app.kubernetes.io/instance`, is also what most Helm charts set on everything, and was the only mark
/// by default before Argo CD 3.0. So it counts where `managedFields` show that Argo CD set it.
fn argocd(metadata: &ObjectMeta) -> Option<Owner> {
    const INSTANCE: &str = "app.kubernetes.io/instance";
    let tracked = annotation(metadata, "argocd.argoproj.io/tracking-id").and_then(tracked_by);
    let labelled = || label(metadata, "argocd.argoproj.io/instance");
    let labelled_by_default = || {
        let instance = label(metadata, INSTANCE)?;
        let mut entries = metadata.managed_fields.iter().flatten();
        entries
            .any(|entry| applied_by_argocd(entry) && entry_has(entry, &["metadata", "labels", INSTANCE]))
            .then_some(instance)
    };
    let application = tracked.or_else(labelled).or_else(labelled_by_default)?;
    Some(Owner::ArgocdApplication(shown(application)))
}

/// The application of a tracking id: `payments:apps/Deployment:default/web`. Argo CD ignores one of another form
/// (`ParseAppInstanceValue` in `util/argo/resource_tracking.go`, v3.5.1).
fn tracked_by(id: &str) -> Option<&str> {
    let mut parts = id.splitn(3, ':');
    let application = parts.next().filter(|application| !application.is_empty())?;
    let is_pair = |part: Option<&str>| part.is_some_and(|part| part.matches('/').count() == 1);
    (is_pair(parts.next()) && is_pair(parts.next())).then_some(application)
}

/// Argo CD's application controller, as a manager of what it applies (`ArgoCDSSAManager` in `common/common.go`, v3.5.1),
/// and as the API server named it before. Its API server also writes cluster Secrets, as `argocd-server`, and owns none.
fn applied_by_argocd(entry: &ManagedFieldsEntry) -> bool {
    matches!(
        entry.manager.as_deref(),
        Some("argocd-controller" | "argocd-application-controller")
    )
}

/// (`SetOwnerLabels` in kustomize-controller v1.9.4, `originLabels` in helm-controller v1.6.3.)
fn flux(metadata: &ObjectMeta) -> Option<Owner> {
    let owner = |group: &str| {
        let name = label(metadata, &format!("{group}/name"))?;
        Some(path(label(metadata, &format!("{group}/namespace")), name))
    };
    owner("kustomize.toolkit.fluxcd.io")
        .map(Owner::FluxKustomization)
        .or_else(|| owner("helm.toolkit.fluxcd.io").map(Owner::FluxHelmRelease))
}

/// What Rancher's wrangler applies: Rancher's own sets, Fleet's bundles, the Addons of K3s and RKE2, and others.
///
/// A set has an id or an owner (`GetLabelsAndAnnotations` in `pkg/apply/desiredset_apply.go`, rancher/wrangler v3.7.1). The
/// hash label alone names neither: Rancher leaves it on objects of its own (seen on Rancher 2.15.0).
fn object_set(metadata: &ObjectMeta) -> Option<Owner> {
    let id = annotation(metadata, "objectset.rio.cattle.io/id").unwrap_or_default();
    // Rancher's own: Harvester applies the import manifest as the first, Rancher its Secrets as `rancher-…`
    // (`rancher-stv-aggregation`; seen on Rancher 2.15.0).
    if id == "cluster-registration" || id.starts_with("rancher-") {
        return None;
    }
    let Some(gvk) = annotation(metadata, "objectset.rio.cattle.io/owner-gvk") else {
        return (!id.is_empty()).then(|| fleet_bundle(id));
    };
    let kind = gvk.rsplit_once("Kind=").map_or(gvk, |(_, kind)| kind);
    let namespace = annotation(metadata, "objectset.rio.cattle.io/owner-namespace");
    let name = annotation(metadata, "objectset.rio.cattle.io/owner-name").map(|name| path(namespace, name));
    Some(match name {
        Some(name) if kind == "Addon" && gvk.starts_with("k3s.cattle.io/") => Owner::Addon(name),
        name => Owner::ObjectSet {
            id: shown(id),
            of: Some(
                format!("{} {}", shown(kind), name.unwrap_or_default())
                    .trim_end()
                    .to_owned(),
            ),
        },
    })
}

/// A set without an owner. Fleet's are called `default-<bundle deployment>-<scope of the agent>`, that of its own agent
/// `fleet-agent-bootstrap` (`GetSetID` in `internal/cmd/agent/deployer/desiredset/plan.go`, rancher/fleet v0.16.1). Its
/// `fleet.cattle.io/bundle-id` is on the chart, not on the objects.
fn fleet_bundle(id: &str) -> Owner {
    let bundle = id.strip_prefix("default-");
    match bundle.or_else(|| id.starts_with("fleet-").then_some(id)) {
        Some(bundle) => Owner::FleetBundle(shown(bundle)),
        None => Owner::ObjectSet {
            id: shown(id),
            of: None,
        },
    }
}

/// Helm annotates all objects of a release but its hooks, which have no more than the label that charts set by
/// convention, and are applied again at each upgrade.
fn helm(metadata: &ObjectMeta) -> Option<Owner> {
    let name = annotation(metadata, "meta.helm.sh/release-name").map(shown);
    let is_of_chart = label(metadata, "app.kubernetes.io/managed-by") == Some("Helm");
    (name.is_some() || is_of_chart).then(|| Owner::HelmRelease {
        name,
        namespace: annotation(metadata, "meta.helm.sh/release-namespace").map(shown),
    })
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    value(metadata.labels.as_ref(), key)
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    value(metadata.annotations.as_ref(), key)
}

/// An empty value is no mark.
fn value<'a>(map: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    map?.get(key)
        .map(|value| value.trim())
        .filter(|value| !value.is_empty())
}

fn path(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{}/{}", shown(namespace), shown(name)),
        None => shown(name),
    }
}

/// A text of the API as it may be printed.
fn shown(text: &str) -> String {
    match text.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => sanitize::cell(&text[..end]) + "...",
        None => sanitize::cell(text),
    }
}

/// A field manager of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The field manager. It is what the client calls itself, and safe to print.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// When this manager last changed something in the object, to the second.
    pub time: Option<Timestamp>,
}

impl fmt::Display for Writer {
    /// `manager "argocd-controller"`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "manager \"{}\"", self.manager)
    }
}

/// The manager that wrote a field last, or, if no manager has the field, the one that wrote the object last. `except`,
/// our own manager, and writes to a subresource (`status`) do not count. `None` if there is no other manager.
///
/// `field` is a path such as `["spec", "template", "spec", "volumes"]`. A manager has it if it has all of it, a part of it,
/// or what it is a part of; the path goes into every item of a list.
pub fn last_writer(metadata: &ObjectMeta, field: &[&str], except: &str) -> Option<Writer> {
    let others = || {
        let entries = metadata.managed_fields.iter().flatten();
        entries.filter(|entry| {
            let manager = entry.manager.as_deref().unwrap_or_default();
            manager != except && !manager.is_empty() && entry.subresource.as_deref().unwrap_or_default().is_empty()
        })
    };
    let last = others()
        .filter(|entry| entry_has(entry, field))
        .max_by_key(|entry| &entry.time)
        .or_else(|| others().max_by_key(|entry| &entry.time))?;
    Some(Writer {
        manager: shown(last.manager.as_deref().unwrap_or_default()),
        operation: shown(last.operation.as_deref().unwrap_or_default()),
        time: last.time.as_ref().map(|time| time.0),
    })
}

fn entry_has(entry: &ManagedFieldsEntry, field: &[&str]) -> bool {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
    fields.is_some_and(|fields| fields.as_object().is_some_and(|fields| !fields.is_empty()) && has(fields, field))
}

/// Whether a set of fields has a path. `f:` is a field, `k:` an item of a list by its keys, `.` the object itself.
/// (`fieldpath/serialize-pe.go`, structured-merge-diff v6.)
fn has(fields: &Value, path: &[&str]) -> bool {
    let (Some(fields), Some((first, rest))) = (fields.as_object(), path.split_first()) else {
        return path.is_empty();
    };
    // The manager has all of it.
    if fields.is_empty() {
        return true;
    }
    fields.iter().any(|(key, below)| match key.split_once(':') {
        Some(("f", name)) => name == *first && has(below, rest),
        Some(("k", _)) => has(below, path),
        _ => false,
    })
}

#[cfg(test)]
mod tests;
