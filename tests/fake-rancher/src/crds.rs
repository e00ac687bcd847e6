//! Rancher's own kinds, settings and features, installed on the management API server for each token storage.

use serde_json::{Value, json};

use crate::api::{Api, ApiError, ApiResult, paths};
use crate::config::TokenStorage;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The token object. No status subresource in any version (`pkg/crds/dashboard/crds.go`, 2.12.0 and 2.15.0: seen,
/// `/status` returns 404). Unknown fields are pruned in spec and status (seen on Rancher 2.15.0 and 2.12.0), so a
/// version without `ttl` drops it silently.
fn registration_tokens(storage: TokenStorage) -> Value {
    let text = json!({"type": "string"});
    let mut spec = json!({"clusterName": text});
    let mut status = json!({
        "insecureCommand": text, "command": text, "windowsNodeCommand": text, "insecureWindowsNodeCommand": text,
        "nodeCommand": text, "insecureNodeCommand": text, "manifestUrl": text, "token": text,
    });
    if storage == TokenStorage::Secret {
        // `pkg/apis/management.cattle.io/v3/cluster_types.go`, 2.15.0.
        for field in ["ttl", "gracePeriod"] {
            spec[field] = json!({"type": "integer", "format": "int64", "nullable": true});
        }
        for field in ["tokenSecretName", "expiresAt", "gracePeriodExpiresAt"] {
            status[field] = json!({"type": "string", "nullable": true});
        }
    }
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": spec},
        "status": {"type": "object", "properties": status},
    }});
    crd(
        "clusterregistrationtokens",
        "ClusterRegistrationToken",
        "Namespaced",
        &schema,
        false,
    )
}

/// Clusters have a status subresource since 2.15.0 (seen on Rancher 2.15.0; 2.12.0 has none).
fn clusters(storage: TokenStorage) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": open, "status": open}});
    crd(
        "clusters",
        "Cluster",
        "Cluster",
        &schema,
        storage == TokenStorage::Secret,
    )
}

/// Seen on Rancher 2.15.0 and 2.12.0: all fields are at the top level of the object.
fn settings() -> Value {
    let text = json!({"type": "string"});
    let schema = json!({"type": "object", "properties": {
        "value": text, "default": text, "source": text, "customized": {"type": "boolean"},
    }});
    crd("settings", "Setting", "Cluster", &schema, false)
}

fn features() -> Value {
    let flag = json!({"type": "boolean"});
    let unset = json!({"type": "boolean", "nullable": true});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"value": unset}},
        "status": {"type": "object", "properties": {
            "default": flag, "description": {"type": "string"}, "dynamic": flag, "lockedValue": unset, "prime": flag,
        }},
    }});
    crd("features", "Feature", "Cluster", &schema, false)
}

/// The kinds of provisioned clusters. 2.15.0 serves another version of machines beside that of 2.12.0.
fn of_provisioned(storage: TokenStorage) -> [Value; 2] {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": open, "status": open}});
    let mut clusters = crd("clusters", "Cluster", "Namespaced", &schema, false);
    let version = &mut clusters["spec"]["versions"][0];
    version["name"] = "v1".into();
    clusters["spec"]["group"] = "provisioning.cattle.io".into();
    clusters["metadata"]["name"] = "clusters.provisioning.cattle.io".into();
    let mut machines = crd("machines", "Machine", "Namespaced", &schema, false);
    machines["spec"]["versions"][0]["name"] = "v1beta1".into();
    if storage == TokenStorage::Secret {
        let mut newer = machines["spec"]["versions"][0].clone();
        (newer["name"], newer["storage"]) = ("v1beta2".into(), false.into());
        machines["spec"]["versions"] = json!([machines["spec"]["versions"][0], newer]);
    }
    machines["spec"]["group"] = "cluster.x-k8s.io".into();
    machines["metadata"]["name"] = "machines.cluster.x-k8s.io".into();
    // What is said of Cluster API's kinds: a name alone is not enough for them.
    machines["metadata"]["annotations"] =
        json!({"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/cluster-api"});
    [clusters, machines]
}

fn crd(plural: &str, kind: &str, scope: &str, schema: &Value, status: bool) -> Value {
    let mut version = json!({
        "name": "v3", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
    });
    if status {
        version["subresources"] = json!({"status": {}});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.management.cattle.io")},
        "spec": {
            "group": "management.cattle.io", "scope": scope, "versions": [version],
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
            },
        },
    })
}

/// Installs or changes the kinds, and returns when the API server serves them.
pub(crate) async fn install(api: &Api, storage: TokenStorage) -> ApiResult<()> {
    let own = [registration_tokens(storage), clusters(storage), settings(), features()];
    for crd in own.into_iter().chain(of_provisioned(storage)) {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match api.create(CRDS, &crd).await {
            Ok(_) => {}
            Err(ApiError::AlreadyExists) => {
                api.merge(&format!("{CRDS}/{name}"), &json!({"spec": crd["spec"]}))
                    .await?;
            }
            Err(error) => return Err(error),
        }
    }
    let own = ["clusterregistrationtokens", "clusters", "settings", "features"];
    let own = own.map(|plural| format!("/apis/management.cattle.io/v3/{plural}"));
    let others = [
        "/apis/provisioning.cattle.io/v1/clusters",
        "/apis/cluster.x-k8s.io/v1beta1/machines",
    ];
    for path in own.into_iter().chain(others.map(str::to_owned)) {
        while api.get(&path).await?.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// A setting as Rancher keeps it: `value` may be empty, then `default` counts (`pkg/settings/setting.go`, 2.15.0).
struct Setting {
    name: &'static str,
    value: String,
    default: &'static str,
    source: &'static str,
}

fn wanted_settings(storage: TokenStorage, url: &str, cacerts: &str, version_in_default_only: bool) -> Vec<Setting> {
    let plain = |name, default| Setting {
        name,
        value: String::new(),
        default,
        source: "",
    };
    let mut settings = vec![
        Setting {
            name: "server-url",
            value: url.to_owned(),
            default: "",
            source: "env",
        },
        Setting {
            name: "cacerts",
            value: cacerts.trim_end().to_owned(),
            default: "",
            source: "",
        },
        if version_in_default_only {
            Setting {
                name: "server-version",
                value: String::new(),
                default: storage.version(),
                source: "",
            }
        } else {
            Setting {
                name: "server-version",
                value: storage.version().to_owned(),
                default: "dev",
                source: "env",
            }
        },
        plain("auth-token-max-ttl-minutes", "129600"),
        plain("kubeconfig-default-token-ttl-minutes", "43200"),
        plain("agent-tls-mode", "strict"),
    ];
    if storage == TokenStorage::Secret {
        settings.push(plain("crt-default-ttl-minutes", "43200"));
        settings.push(plain("crt-default-grace-period-minutes", "180"));
    }
    settings
}

/// Writes the settings, and with `secret` storage the feature (`pkg/features/feature.go`, 2.15.0: on by default).
pub(crate) async fn configure(
    api: &Api,
    storage: TokenStorage,
    url: &str,
    cacerts: &str,
    default_only: bool,
) -> ApiResult<()> {
    for setting in wanted_settings(storage, url, cacerts, default_only) {
        let object = json!({
            "apiVersion": "management.cattle.io/v3", "kind": "Setting", "metadata": {"name": setting.name},
            "value": setting.value, "default": setting.default, "source": setting.source, "customized": false,
        });
        upsert(api, &paths::settings(), &object).await?;
    }
    if storage == TokenStorage::Secret {
        let object = json!({
            "apiVersion": "management.cattle.io/v3", "kind": "Feature", "metadata": {"name": "crt-token-ttl-rotation"},
            "spec": {"value": null},
            "status": {
                "default": true, "dynamic": true, "lockedValue": null, "prime": false,
                "description": "Enable TTL-based automatic rotation of ClusterRegistrationToken credentials",
            },
        });
        api.ensure(&paths::features(), &object).await?;
    }
    Ok(())
}

async fn upsert(api: &Api, collection: &str, object: &Value) -> ApiResult<()> {
    match api.create(collection, object).await {
        Ok(_) => Ok(()),
        Err(ApiError::AlreadyExists) => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            api.merge(&format!("{collection}/{name}"), object).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}
