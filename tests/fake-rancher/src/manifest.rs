//! The manifest that Rancher applies to a downstream cluster: the agent's credential Secret and Deployment, as its
//! template renders them (`pkg/systemtemplate/template.go`, 2.12.0 and 2.15.0), including kubectl's annotation.

use serde_json::{Value, json};

use crate::api::read::encode;
use crate::config::TokenStorage;
use crate::token::{NamePattern, ca_checksum};
use crate::world::{AGENT_NAMESPACE, World};

/// The values of the template.
pub(crate) struct Values<'a> {
    pub(crate) storage: TokenStorage,
    /// `server-url`, which names the Secret too.
    pub(crate) url: String,
    pub(crate) token: &'a str,
    /// The cluster id; "" in the import manifest (`pkg/api/norman/customization/clusterregistrationtokens/import.go`).
    pub(crate) cluster: &'a str,
    pub(crate) pattern: NamePattern,
    /// The import manifest carries none, so an agent from it opens no steve tunnel.
    pub(crate) features: bool,
    pub(crate) cacerts: String,
    pub(crate) install_uuid: &'a str,
    /// The namespace that the agents are in.
    pub(crate) namespace: &'a str,
}

/// The agent's feature flags (seen on Rancher 2.12.0 and 2.15.0).
pub(crate) fn features(storage: TokenStorage) -> &'static [(&'static str, bool)] {
    match storage {
        TokenStorage::Status => &[
            ("embedded-cluster-api", false),
            ("fleet", false),
            ("managed-system-upgrade-controller", false),
            ("multi-cluster-management", false),
            ("multi-cluster-management-agent", true),
            ("provisioningprebootstrap", false),
            ("provisioningv2", false),
            ("rke2", false),
            ("ui-sql-cache", true),
        ],
        TokenStorage::Secret => &[
            ("fleet", false),
            ("managed-system-upgrade-controller", false),
            ("multi-cluster-management", false),
            ("multi-cluster-management-agent", true),
            ("provisioningprebootstrap", false),
            ("provisioningv2", false),
            ("rke2", false),
            ("turtles", false),
            ("ui-sql-cache", true),
        ],
    }
}

/// The agent's image for a token storage.
pub(crate) fn agent_image(storage: TokenStorage) -> String {
    format!("rancher/rancher-agent:{}", storage.version())
}

impl Values<'_> {
    pub(crate) fn secret_name(&self) -> String {
        self.pattern.secret_name(&self.url, self.token, self.cluster)
    }

    fn service_account(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "cattle", "namespace": self.namespace}})
    }

    fn secret(&self) -> Value {
        let cluster = if self.pattern == NamePattern::Import {
            ""
        } else {
            self.cluster
        };
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": self.secret_name(), "namespace": self.namespace},
            "data": {"url": encode(&self.url), "token": encode(self.token), "namespace": encode(cluster)},
        })
    }

    fn environment(&self) -> Vec<Value> {
        let features: Vec<String> = features(self.storage)
            .iter()
            .map(|(name, on)| format!("{name}={on}"))
            .collect();
        let registry = match self.storage {
            TokenStorage::Status => "CATTLE_CLUSTER_REGISTRY",
            TokenStorage::Secret => "CATTLE_SYSTEM_DEFAULT_REGISTRY",
        };
        let secret = self.secret_name();
        let sum = ca_checksum(&self.cacerts);
        let features = features.join(",");
        let mut all: Vec<(&str, &str)> = Vec::new();
        if self.features {
            all.push(("CATTLE_FEATURES", &features));
        }
        all.extend([
            ("CATTLE_SERVER", self.url.as_str()),
            ("CATTLE_CA_CHECKSUM", &sum),
            ("CATTLE_CLUSTER", "true"),
            ("CATTLE_K8S_MANAGED", "true"),
            (registry, ""),
        ]);
        // The variable came with the present formula (2.9.9, 2.10.5, 2.11.1); older agents do not know their Secret's name.
        if self.pattern != NamePattern::Md5 {
            all.push(("CATTLE_CREDENTIAL_NAME", &secret));
        }
        all.extend([
            ("CATTLE_SUC_APP_NAME_OVERRIDE", ""),
            ("CATTLE_SERVER_VERSION", self.storage.version()),
            ("CATTLE_INSTALL_UUID", self.install_uuid),
            ("CATTLE_INGRESS_IP_DOMAIN", "sslip.io"),
            ("STRICT_VERIFY", "true"),
        ]);
        all.into_iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect()
    }

    fn deployment(&self) -> Value {
        let labels = json!({"app": "cattle-cluster-agent"});
        let container = json!({
            "name": "cluster-register", "image": agent_image(self.storage), "imagePullPolicy": "IfNotPresent",
            "env": self.environment(),
            "volumeMounts": [{"mountPath": "/cattle-credentials", "name": "cattle-credentials", "readOnly": true}],
        });
        let volume = json!({
            "name": "cattle-credentials", "secret": {"defaultMode": 320, "secretName": self.secret_name()},
        });
        let tolerations = json!([
            {"effect": "NoSchedule", "key": "node-role.kubernetes.io/controlplane", "value": "true"},
            {"effect": "NoSchedule", "key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
        ]);
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": "cattle-cluster-agent", "namespace": self.namespace,
                "annotations": {"management.cattle.io/scale-available": "2"},
            },
            "spec": {
                "selector": {"matchLabels": labels},
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}, "type": "RollingUpdate"},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "affinity": affinity(), "containers": [container], "serviceAccountName": "cattle",
                    "tolerations": tolerations, "volumes": [volume],
                }},
            },
        })
    }

    /// All objects in the order of the template, without those that a fake agent does not need (roles, service).
    pub(crate) fn objects(&self) -> Vec<Value> {
        vec![self.service_account(), self.secret(), self.deployment()]
    }

    /// As a file to download and apply.
    pub(crate) fn yaml(&self) -> String {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}});
        let mut text = String::new();
        for object in std::iter::once(namespace).chain(self.objects()) {
            text.push_str("---\n");
            // JSON is valid YAML, in case the printer fails.
            text.push_str(&serde_saphyr::to_string(&object).unwrap_or_else(|_| object.to_string()));
            text.push('\n');
        }
        text
    }
}

fn affinity() -> Value {
    let prefer = |key: &str, weight: i32| {
        json!({
            "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": ["true"]}]}, "weight": weight,
        })
    };
    json!({
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                prefer("node-role.kubernetes.io/controlplane", 100),
                prefer("node-role.kubernetes.io/control-plane", 100),
                prefer("cattle.io/cluster-agent", 1),
            ],
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "NotIn", "values": ["windows"]}]},
            ]},
        },
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "labelSelector": {"matchExpressions": [
                    {"key": "app", "operator": "In", "values": ["cattle-cluster-agent"]},
                ]},
                "topologyKey": "kubernetes.io/hostname",
            },
        }]},
    })
}

/// The import manifest, as a client sees it.
pub(crate) fn import_manifest(world: &World, token: &str) -> String {
    import_values(world, token, AGENT_NAMESPACE).yaml()
}

/// What the import manifest is rendered from.
pub(crate) fn import_values<'a>(world: &'a World, token: &'a str, namespace: &'a str) -> Values<'a> {
    Values {
        storage: world.storage(),
        url: world.server_url(),
        token,
        cluster: "",
        pattern: NamePattern::Import,
        features: false,
        cacerts: world.setting("cacerts"),
        install_uuid: &world.install_uuid,
        namespace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(token: &str, storage: TokenStorage) -> Value {
        Values {
            storage,
            url: "https://rancher.example.com".to_owned(),
            token,
            cluster: "c-gsrbc",
            pattern: NamePattern::Sha256,
            features: true,
            cacerts: "x".to_owned(),
            install_uuid: "3e527d52-0db4-4d39-bd48-49d0495c4833",
            namespace: "cattle-system",
        }
        .deployment()
    }

    /// The relevant half of the annotation that Rancher 2.15.0 left on a Deployment.
    #[test]
    fn the_deployment_matches_rancher_2_15_0() {
        let deployment = values("a", TokenStorage::Secret);
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let names: Vec<&str> = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names.join(" "),
            "CATTLE_FEATURES CATTLE_SERVER CATTLE_CA_CHECKSUM CATTLE_CLUSTER CATTLE_K8S_MANAGED \
             CATTLE_SYSTEM_DEFAULT_REGISTRY CATTLE_CREDENTIAL_NAME CATTLE_SUC_APP_NAME_OVERRIDE CATTLE_SERVER_VERSION \
             CATTLE_INSTALL_UUID CATTLE_INGRESS_IP_DOMAIN STRICT_VERIFY"
        );
        assert_eq!(
            container["env"][0]["value"],
            "fleet=false,managed-system-upgrade-controller=false,multi-cluster-management=false,\
             multi-cluster-management-agent=true,provisioningprebootstrap=false,provisioningv2=false,rke2=false,\
             turtles=false,ui-sql-cache=true"
        );
        assert_eq!(
            deployment["spec"]["template"]["spec"]["volumes"][0]["secret"]["defaultMode"],
            320
        );
        assert!(
            deployment["spec"].get("replicas").is_none(),
            "Rancher edits them outside its apply"
        );
    }

    #[test]
    fn an_old_agent_does_not_know_the_name_of_its_secret() {
        let mut old = Values {
            storage: TokenStorage::Status,
            url: "https://rancher.example.com".to_owned(),
            token: "t",
            cluster: "c-a",
            pattern: NamePattern::Md5,
            features: true,
            cacerts: String::new(),
            install_uuid: "",
            namespace: "cattle-system",
        };
        assert!(
            !old.environment()
                .iter()
                .any(|entry| entry["name"] == "CATTLE_CREDENTIAL_NAME")
        );
        old.pattern = NamePattern::Sha256;
        assert!(
            old.environment()
                .iter()
                .any(|entry| entry["name"] == "CATTLE_CREDENTIAL_NAME")
        );
    }
}
