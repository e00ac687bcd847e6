use rstest::rstest;
use serde_json::json;

use super::*;

fn metadata(json: Value) -> ObjectMeta {
    serde_json::from_value(json).unwrap()
}

fn labelled(labels: &Value) -> ObjectMeta {
    metadata(json!({ "labels": labels }))
}

fn annotated(annotations: &Value) -> ObjectMeta {
    metadata(json!({ "annotations": annotations }))
}

fn referenced_by(kind: &str, controller: Option<bool>) -> ObjectMeta {
    let reference = json!({ "apiVersion": "x/v1", "kind": kind, "name": "bar", "uid": "1", "controller": controller });
    metadata(json!({ "ownerReferences": [reference] }))
}

fn objectset(id: &str, gvk: &str, namespace: &str, name: &str) -> ObjectMeta {
    annotated(&json!({
        "objectset.rio.cattle.io/id": id,
        "objectset.rio.cattle.io/owner-gvk": gvk,
        "objectset.rio.cattle.io/owner-namespace": namespace,
        "objectset.rio.cattle.io/owner-name": name,
    }))
}

/// An object with the label that Argo CD tracks by before 3.0, as this manager set it.
fn instance_set_by(manager: &str, fields: &Value) -> ObjectMeta {
    metadata(json!({
        "labels": { "app.kubernetes.io/instance": "payments" },
        "managedFields": [
            { "manager": "kubectl-edit", "operation": "Update", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
            { "manager": manager, "operation": "Update", "fieldsV1": fields },
        ],
    }))
}

fn instance_field() -> Value {
    json!({ "f:metadata": { "f:labels": { ".": {}, "f:app.kubernetes.io/instance": {} } } })
}

fn named(metadata: &ObjectMeta) -> Option<String> {
    owner(metadata).map(|owner| owner.to_string())
}

#[rstest]
#[case::controller(referenced_by("Foo", Some(true)), "the controller Foo/bar (ownerReference)")]
#[case::external_secret(referenced_by("ExternalSecret", Some(true)), "ExternalSecret bar")]
#[case::external_secret_plain(referenced_by("ExternalSecret", None), "ExternalSecret bar")]
#[case::external_secret_label(labelled(&json!({ "reconcile.external-secrets.io/managed": "true" })), "an ExternalSecret")]
#[case::external_secret_hash(
    annotated(&json!({ "reconcile.external-secrets.io/data-hash": "02217008d13ed228e75cf6d26fe74324" })),
    "an ExternalSecret"
)]
#[case::sealed_secret(referenced_by("SealedSecret", Some(true)), "SealedSecret bar")]
#[case::sealed_secret_plain(referenced_by("SealedSecret", Some(false)), "SealedSecret bar")]
#[case::sealed_secret_managed(annotated(&json!({ "sealedsecrets.bitnami.com/managed": "true" })), "a SealedSecret")]
#[case::sealed_secret_patched(annotated(&json!({ "sealedsecrets.bitnami.com/patch": "true" })), "a SealedSecret")]
#[case::argocd_tracking_id(
    annotated(&json!({ "argocd.argoproj.io/tracking-id": "payments:apps/Deployment:default/web" })),
    "Argo CD application \"payments\""
)]
#[case::argocd_tracking_id_of_the_core_group(
    annotated(&json!({ "argocd.argoproj.io/tracking-id": "team_payments:/Secret:argocd/cluster-a" })),
    "Argo CD application \"team_payments\""
)]
#[case::argocd_label(labelled(&json!({ "argocd.argoproj.io/instance": "payments" })), "Argo CD application \"payments\"")]
#[case::argocd_default_label(
    instance_set_by("argocd-controller", &instance_field()),
    "Argo CD application \"payments\""
)]
#[case::argocd_default_label_before_2_5(
    instance_set_by("argocd-application-controller", &instance_field()),
    "Argo CD application \"payments\""
)]
#[case::kustomization(
    labelled(&json!({ "kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system" })),
    "Flux Kustomization flux-system/apps"
)]
#[case::kustomization_without_namespace(
    labelled(&json!({ "kustomize.toolkit.fluxcd.io/name": "apps" })),
    "Flux Kustomization apps"
)]
#[case::helm_release_of_flux(
    labelled(&json!({ "helm.toolkit.fluxcd.io/name": "agent", "helm.toolkit.fluxcd.io/namespace": "flux-system" })),
    "Flux HelmRelease flux-system/agent"
)]
#[case::fleet_bundle(
    annotated(&json!({ "objectset.rio.cattle.io/id": "default-agents-simple-cattle-fleet-system" })),
    "Fleet bundle agents-simple-cattle-fleet-system"
)]
#[case::fleet_agent(
    annotated(&json!({ "objectset.rio.cattle.io/id": "fleet-agent-bootstrap" })),
    "Fleet bundle fleet-agent-bootstrap"
)]
#[case::addon(
    objectset("", "k3s.cattle.io/v1, Kind=Addon", "kube-system", "join-token"),
    "the K3s Addon kube-system/join-token"
)]
#[case::objectset(annotated(&json!({ "objectset.rio.cattle.io/id": "harvester" })), "objectset harvester")]
#[case::objectset_of_an_owner(
    objectset(
        "provisioning-cluster-create",
        "management.cattle.io/v3, Kind=Cluster",
        "",
        "c-4sjtl"
    ),
    "objectset provisioning-cluster-create of Cluster c-4sjtl"
)]
#[case::objectset_of_an_owner_without_id(
    objectset("", "/v1, Kind=Secret", "cattle-global-data", "cc-a"),
    "objectset of Secret cattle-global-data/cc-a"
)]
#[case::objectset_that_only_begins_like_fleets(
    objectset("default-x", "a.io/v1, Kind=Foo", "ns", "bar"),
    "objectset default-x of Foo ns/bar"
)]
#[case::helm(
    annotated(&json!({ "meta.helm.sh/release-name": "agent", "meta.helm.sh/release-namespace": "cattle-system" })),
    "Helm release agent (namespace cattle-system)"
)]
#[case::helm_without_namespace(annotated(&json!({ "meta.helm.sh/release-name": "agent" })), "Helm release agent")]
#[case::helm_hook(labelled(&json!({ "app.kubernetes.io/managed-by": "Helm" })), "a Helm chart")]
fn a_mark_names_the_owner(#[case] metadata: ObjectMeta, #[case] expected: &str) {
    assert_eq!(named(&metadata).as_deref(), Some(expected));
}

#[rstest]
#[case::nothing(ObjectMeta::default())]
#[case::plain_reference(referenced_by("Foo", None))]
#[case::reference_of_no_controller(referenced_by("Foo", Some(false)))]
#[case::instance_label_of_a_chart(labelled(&json!({
    "app.kubernetes.io/instance": "payments", "app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "argocd",
})))]
#[case::instance_label_that_somebody_set(instance_set_by("kubectl-client-side-apply", &instance_field()))]
#[case::instance_label_of_a_cluster_that_argocd_was_told_of(instance_set_by("argocd-server", &instance_field()))]
#[case::instance_label_that_argocd_did_not_set(
    instance_set_by("argocd-application-controller", &json!({ "f:data": { ".": {}, "f:config": {} } }))
)]
#[case::argocd_field_manager_without_label(metadata(json!({
    "managedFields": [{ "manager": "argocd-controller", "operation": "Apply", "fieldsV1": instance_field() }],
})))]
#[case::cluster_secret_of_argocd(metadata(json!({
    "labels": { "argocd.argoproj.io/secret-type": "cluster" }, "annotations": { "managed-by": "argocd.argoproj.io" },
})))]
#[case::tracking_id_without_colon(annotated(&json!({ "argocd.argoproj.io/tracking-id": "payments" })))]
#[case::tracking_id_without_object(annotated(&json!({ "argocd.argoproj.io/tracking-id": "payments:apps/Deployment" })))]
#[case::tracking_id_of_no_application(annotated(&json!({ "argocd.argoproj.io/tracking-id": ":apps/Deployment:a/b" })))]
#[case::empty_values(metadata(json!({
    "labels": {
        "argocd.argoproj.io/instance": "", "kustomize.toolkit.fluxcd.io/name": "", "helm.toolkit.fluxcd.io/name": "",
        "helm.toolkit.fluxcd.io/namespace": "flux-system", "app.kubernetes.io/managed-by": "",
        "reconcile.external-secrets.io/managed": "",
    },
    "annotations": {
        "argocd.argoproj.io/tracking-id": "", "meta.helm.sh/release-name": " ",
        "meta.helm.sh/release-namespace": "cattle-system", "objectset.rio.cattle.io/id": "",
        "objectset.rio.cattle.io/owner-gvk": "", "objectset.rio.cattle.io/owner-name": "bar",
        "reconcile.external-secrets.io/data-hash": "", "sealedsecrets.bitnami.com/managed": "",
    },
})))]
#[case::sealed_secrets_key(labelled(&json!({ "sealedsecrets.bitnami.com/sealed-secrets-key": "active" })))]
#[case::not_managed(metadata(json!({
    "labels": { "reconcile.external-secrets.io/managed": "false", "app.kubernetes.io/managed-by": "kubectl-crt" },
    "annotations": { "sealedsecrets.bitnami.com/managed": "false" },
})))]
#[case::bare_hash(labelled(&json!({ "objectset.rio.cattle.io/hash": "fff231d3e4fb49fc96356b24a1c52444d6eae691" })))]
#[case::set_of_rancher(annotated(&json!({ "objectset.rio.cattle.io/id": "rancher-stv-aggregation" })))]
#[case::set_of_rancher_with_owner(objectset("rancher-x", "management.cattle.io/v3, Kind=Cluster", "", "c-4sjtl"))]
fn other_metadata_names_no_owner(#[case] metadata: ObjectMeta) {
    assert_eq!(named(&metadata), None);
}

/// Metadata as it was read from real systems, or from the manifest that they apply.
#[rstest]
#[case::agent_2_15_and_2_12(json!({
    "annotations": {
        "deployment.kubernetes.io/revision": "3",
        "kubectl.kubernetes.io/last-applied-configuration": "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\"}",
        "management.cattle.io/scale-available": "2",
    },
    "creationTimestamp": "2026-11-22T05:18:17Z",
    "generation": 3,
    "managedFields": [
        { "manager": "agent", "operation": "Update", "time": "2026-11-22T05:18:30Z", "fieldsType": "FieldsV1",
          "fieldsV1": { "f:metadata": { "f:annotations": { ".": {}, "f:management.cattle.io/scale-available": {} } } } },
        { "manager": "kubectl-client-side-apply", "operation": "Update", "time": "2026-11-22T05:18:17Z",
          "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
    ],
    "name": "cattle-cluster-agent",
    "namespace": "cattle-system",
}))]
#[case::agent_secret_2_15(json!({
    "annotations": {
        "field.cattle.io/projectId": "c-gsrbc:p-grvjj",
        "kubectl.kubernetes.io/last-applied-configuration": "{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}",
    },
    "creationTimestamp": "2026-11-22T05:18:22Z",
    "name": "cattle-credentials-43cbefdd06",
    "namespace": "cattle-system",
}))]
#[case::stv_aggregation_2_15(json!({
    "annotations": {
        "field.cattle.io/projectId": "c-gsrbc:p-grvjj",
        "objectset.rio.cattle.io/id": "rancher-stv-aggregation",
    },
    "labels": { "objectset.rio.cattle.io/hash": "30856cb1ea1fc95ce3b50012158034b6911bdb12" },
    "name": "stv-aggregation",
    "namespace": "cattle-system",
}))]
#[case::agent_of_a_provisioned_cluster(json!({
    "annotations": { "management.cattle.io/scale-available": "2" },
    "name": "cattle-cluster-agent",
    "namespace": "cattle-system",
}))]
#[case::agent_and_secret_of_harvester(json!({
    "annotations": {
        "deployment.kubernetes.io/revision": "1",
        "objectset.rio.cattle.io/applied": "H4sIAAAAAAAA",
        "objectset.rio.cattle.io/id": "cluster-registration",
    },
    "labels": { "objectset.rio.cattle.io/hash": "5aad1a050dcd69e80fd3fab11655a0521958c07a" },
    "name": "cattle-cluster-agent",
    "namespace": "cattle-system",
}))]
#[case::registration_token_2_12(json!({ "generation": 3, "name": "default-token", "namespace": "c-sqqnm" }))]
#[case::registration_token_2_15(json!({
    "finalizers": ["wrangler.cattle.io/cluster-registration-token-cleanup"],
    "labels": { "cattle.io/creator": "norman" },
    "name": "system",
    "namespace": "c-gsrbc",
}))]
#[case::token_secret_2_15(json!({
    "name": "crt-token-system",
    "namespace": "c-gsrbc",
    "ownerReferences": [{
        "apiVersion": "management.cattle.io/v3",
        "kind": "ClusterRegistrationToken",
        "name": "system",
        "uid": "288a3df2-c8d9-4f44-be47-a5f751f7ffdb",
    }],
}))]
#[case::cluster_secret_of_argocd_3_5(json!({
    "annotations": { "managed-by": "argocd.argoproj.io" },
    "labels": { "argocd.argoproj.io/secret-type": "cluster" },
    "managedFields": [{
        "manager": "argocd-server", "operation": "Update", "time": "2026-11-22T05:18:17Z", "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:data": { ".": {}, "f:config": {}, "f:name": {}, "f:server": {} },
            "f:metadata": {
                "f:annotations": { ".": {}, "f:managed-by": {} },
                "f:labels": { ".": {}, "f:argocd.argoproj.io/secret-type": {} },
            },
            "f:type": {},
        },
    }],
    "name": "cluster-rancher.example.com-3021442577",
    "namespace": "argocd",
}))]
fn objects_of_the_products_have_no_owner(#[case] object: Value) {
    assert_eq!(named(&metadata(object)), None);
}

#[test]
fn of_several_owners_the_one_that_writes_the_object_is_named() {
    let reference =
        |kind: &str| json!({ "apiVersion": "x/v1", "kind": kind, "name": "bar", "uid": "1", "controller": true });
    let mut all = json!({
        "ownerReferences": [reference("Foo")],
        "labels": {
            "app.kubernetes.io/managed-by": "Helm",
            "helm.toolkit.fluxcd.io/name": "release",
            "kustomize.toolkit.fluxcd.io/name": "apps",
            "reconcile.external-secrets.io/managed": "true",
        },
        "annotations": {
            "argocd.argoproj.io/tracking-id": "payments:apps/Deployment:default/web",
            "meta.helm.sh/release-name": "agent",
            "objectset.rio.cattle.io/id": "default-agents",
            "sealedsecrets.bitnami.com/managed": "true",
        },
    });
    // The strongest mark is taken away, again and again.
    let strongest_first = [
        ("/ownerReferences", "", "the controller Foo/bar (ownerReference)"),
        ("/labels", "reconcile.external-secrets.io/managed", "an ExternalSecret"),
        ("/annotations", "sealedsecrets.bitnami.com/managed", "a SealedSecret"),
        (
            "/annotations",
            "argocd.argoproj.io/tracking-id",
            "Argo CD application \"payments\"",
        ),
        ("/labels", "kustomize.toolkit.fluxcd.io/name", "Flux Kustomization apps"),
        ("/labels", "helm.toolkit.fluxcd.io/name", "Flux HelmRelease release"),
        ("/annotations", "objectset.rio.cattle.io/id", "Fleet bundle agents"),
        ("/annotations", "meta.helm.sh/release-name", "Helm release agent"),
        ("/labels", "app.kubernetes.io/managed-by", "a Helm chart"),
    ];
    for (part, key, expected) in strongest_first {
        assert_eq!(named(&metadata(all.clone())).as_deref(), Some(expected));
        match all.pointer_mut(part).unwrap() {
            Value::Object(marks) => assert!(marks.remove(key).is_some()),
            references => *references = Value::Null,
        }
    }
    assert_eq!(named(&metadata(all)), None);
}

#[test]
fn a_name_does_not_control_the_terminal() {
    let release = "\u{1b}[2Jagent\nHelm is fine";
    let steering = annotated(&json!({ "meta.helm.sh/release-name": release }));
    assert_eq!(named(&steering).unwrap(), "Helm release ^[[2Jagent...");
    let long = annotated(&json!({ "meta.helm.sh/release-name": "é".repeat(1000) }));
    assert_eq!(named(&long).unwrap(), format!("Helm release {}...", "é".repeat(253)));
}

/// The agent's Deployment after `kubectl apply`, our own patch, Argo CD's apply and the controller's status.
fn written(by: &[(&str, &str, &str, Value)]) -> ObjectMeta {
    let entry = |(manager, subresource, time, fields): &(&str, &str, &str, Value)| {
        json!({
            "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields, "manager": manager,
            "operation": if *manager == "argocd-controller" { "Apply" } else { "Update" },
            "subresource": subresource, "time": if time.is_empty() { Value::Null } else { json!(time) },
        })
    };
    metadata(json!({ "managedFields": by.iter().map(entry).collect::<Vec<_>>() }))
}

const OURS: &str = "kubectl-crt";
const VOLUMES: &[&str] = &["spec", "template", "spec", "volumes"];
const ENVIRONMENT: &[&str] = &["spec", "template", "spec", "containers", "env"];

fn volumes() -> Value {
    json!({ "f:spec": { "f:template": { "f:spec": { "f:volumes": {
        ".": {},
        "k:{\"name\":\"cattle-credentials\"}": { ".": {}, "f:name": {}, "f:secret": { ".": {}, "f:secretName": {} } },
    } } } } })
}

fn environment() -> Value {
    json!({ "f:spec": { "f:template": { "f:spec": { "f:containers": {
        "k:{\"name\":\"cluster-register\"}": {
            ".": {},
            "f:env": { ".": {}, "k:{\"name\":\"CATTLE_CREDENTIAL_NAME\"}": { ".": {}, "f:name": {}, "f:value": {} } },
        },
    } } } } })
}

fn manager(metadata: &ObjectMeta, field: &[&str]) -> Option<String> {
    last_writer(metadata, field, OURS).map(|writer| writer.manager)
}

#[test]
fn the_manager_that_wrote_the_field_last_is_named() {
    let object = written(&[
        ("kubectl-client-side-apply", "", "2026-11-22T05:18:17Z", volumes()),
        ("argocd-controller", "", "2026-11-22T06:00:12Z", volumes()),
        (OURS, "", "2026-11-22T06:00:30Z", volumes()),
        ("kube-controller-manager", "status", "2026-11-22T06:00:31Z", volumes()),
        ("agent", "", "2026-11-22T06:00:40Z", environment()),
    ]);
    let writer = last_writer(&object, VOLUMES, OURS).unwrap();
    assert_eq!(
        (writer.to_string().as_str(), writer.operation.as_str()),
        ("manager \"argocd-controller\"", "Apply")
    );
    assert_eq!(writer.time.unwrap().to_string(), "2026-11-22T06:00:12Z");
    assert_eq!(manager(&object, ENVIRONMENT).as_deref(), Some("agent"));
}

#[rstest]
#[case::exactly(volumes(), VOLUMES, true)]
#[case::a_part_of_the_field(volumes(), &["spec", "template"], true)]
#[case::below_an_item_of_a_list(volumes(), &["spec", "template", "spec", "volumes", "secret", "secretName"], true)]
#[case::below_items_of_two_lists(environment(), &["spec", "template", "spec", "containers", "env", "value"], true)]
#[case::what_the_field_is_a_part_of(json!({ "f:spec": { "f:template": {} } }), VOLUMES, true)]
#[case::a_whole_item(
    json!({ "f:spec": { "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"x\"}": {} } } } } }), ENVIRONMENT, true
)]
#[case::a_key_with_a_colon(json!({ "f:data": { "f:a:b": {} } }), &["data", "a:b"], true)]
#[case::another_field(environment(), VOLUMES, false)]
#[case::only_that_it_exists(json!({ "f:spec": { "f:template": { ".": {}, "f:metadata": {} } } }), VOLUMES, false)]
#[case::a_value_of_a_set(json!({ "f:metadata": { "f:finalizers": { "v:\"x\"": {} } } }), &["metadata", "finalizers", "x"], false)]
#[case::a_name_without_its_prefix(json!({ "spec": {} }), &["spec"], false)]
#[case::no_fields(json!({}), VOLUMES, false)]
#[case::no_object(json!("f:spec"), VOLUMES, false)]
fn a_field_is_found_by_its_path(#[case] fields: Value, #[case] path: &[&str], #[case] found: bool) {
    // The other manager wrote later, so that it is named where the field is not found.
    let later = (
        "later",
        "",
        "2026-11-22T07:00:00Z",
        json!({ "f:status": { "f:x": {} } }),
    );
    let object = written(&[("first", "", "2026-11-22T06:00:00Z", fields), later]);
    assert_eq!(
        manager(&object, path).as_deref(),
        Some(if found { "first" } else { "later" })
    );
}

#[test]
fn an_entry_without_a_time_is_the_oldest() {
    let object = written(&[
        ("dated", "", "2026-11-22T05:18:17Z", volumes()),
        ("undated", "", "", volumes()),
    ]);
    assert_eq!(manager(&object, VOLUMES).as_deref(), Some("dated"));
    let object = written(&[("undated", "", "", volumes())]);
    assert_eq!(last_writer(&object, VOLUMES, OURS).unwrap().time, None);
}

#[test]
fn an_object_without_another_writer() {
    assert_eq!(last_writer(&ObjectMeta::default(), VOLUMES, OURS), None);
    let object = written(&[
        (OURS, "", "2026-11-22T06:00:30Z", volumes()),
        (
            "kube-controller-manager",
            "status",
            "2026-11-22T06:00:31Z",
            json!({ "f:status": {} }),
        ),
        ("", "", "2026-11-22T06:00:32Z", volumes()),
    ]);
    assert_eq!(last_writer(&object, VOLUMES, OURS), None);
}

#[test]
fn a_managers_name_does_not_control_the_terminal() {
    let object = written(&[("\u{1b}]0;x\u{7}", "", "2026-11-22T06:00:30Z", volumes())]);
    assert_eq!(
        last_writer(&object, VOLUMES, OURS).unwrap().to_string(),
        "manager \"^[]0;x^G\""
    );
}
