//! Installs the parts of Argo CD's own manifests that processes outside of the cluster need.
//!
//! The manifests are those of the sources that it was built from, without the Deployments, because the components are
//! plain processes. The controller's pod exists all the same: its metrics are read through a Service, and the API
//! server proxies only to addresses of pods (`pkg/registry/core/service/storage/storage.go`, Kubernetes 1.36.3).

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, Secret, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::POLL;
use super::binaries::Binaries;

const CRDS: [(&str, &str); 3] = [
    ("crds/application-crd.yaml", "applications"),
    ("crds/applicationset-crd.yaml", "applicationsets"),
    ("crds/appproject-crd.yaml", "appprojects"),
];
const CONFIG_MAPS: [&str; 6] = [
    "base/config/argocd-cm.yaml",
    "base/config/argocd-cmd-params-cm.yaml",
    "base/config/argocd-gpg-keys-cm.yaml",
    "base/config/argocd-rbac-cm.yaml",
    "base/config/argocd-ssh-known-hosts-cm.yaml",
    "base/config/argocd-tls-certs-cm.yaml",
];
/// How long the API server may take to serve a new kind.
const PATIENCE: Duration = Duration::from_secs(30);
/// The second address of the private network. The API server does not proxy to loopback addresses.
const PRIVATE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Installs it. argocd-server creates the AppProject `default` and the keys in `argocd-secret`.
pub(super) async fn install(client: &Client, binaries: &Binaries, namespace: &str, metrics: u16) -> Result<()> {
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
    Api::all(client.clone()).create(&PostParams::default(), &object).await?;
    for (file, _) in CRDS {
        let object: CustomResourceDefinition = serde_json::from_value(binaries.manifest(file)?)?;
        Api::all(client.clone()).create(&PostParams::default(), &object).await?;
    }
    for file in CONFIG_MAPS {
        create::<ConfigMap>(client, namespace, binaries.manifest(file)?).await?;
    }
    create::<Secret>(client, namespace, binaries.manifest("base/config/argocd-secret.yaml")?).await?;
    metrics_service(client, binaries, namespace, metrics).await?;
    tokio::time::timeout(PATIENCE, all_served(client, namespace))
        .await
        .context("the API server does not serve Argo CD's kinds")
}

async fn create<K>(client: &Client, namespace: &str, object: Value) -> Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object)?;
    let api = Api::namespaced(client.clone(), namespace);
    Ok(api.create(&PostParams::default(), &object).await?)
}

async fn all_served(client: &Client, namespace: &str) {
    for (_, plural) in CRDS {
        let path = format!("/apis/argoproj.io/v1alpha1/namespaces/{namespace}/{plural}");
        while client.request_text(list(&path)).await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    }
}

fn list(path: &str) -> http::Request<Vec<u8>> {
    let mut request = http::Request::new(Vec::new());
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

/// The Service of the controller's metrics, and its pod. The Endpoints are created here: the controllers of Kubernetes
/// omit a pod without a node, and delete a pod whose node does not exist.
async fn metrics_service(client: &Client, binaries: &Binaries, namespace: &str, port: u16) -> Result<()> {
    let address = own_address()?;
    let mut service = binaries.manifest("base/application-controller/argocd-metrics.yaml")?;
    let name = service["metadata"]["name"].clone();
    let port_name = service["spec"]["ports"][0]["name"].clone();
    service["spec"]["selector"] = Value::Null;
    create::<Service>(client, namespace, service).await?;
    let pod = "argocd-application-controller-0";
    let object = json!({
        "metadata": {"name": pod},
        "spec": {"containers": [{"name": "argocd-application-controller", "image": "argocd"}]},
    });
    create::<Pod>(client, namespace, object).await?;
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    pods.patch_status(pod, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let endpoints = json!({
        "metadata": {"name": name},
        "subsets": [{
            "addresses": [{"ip": address, "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace}}],
            "ports": [{"name": port_name, "port": port}],
        }],
    });
    create::<Endpoints>(client, namespace, endpoints).await?;
    Ok(())
}

/// An address of this machine that is not a loopback address.
fn own_address() -> Result<Ipv4Addr> {
    if TcpListener::bind((PRIVATE_ADDRESS, 0)).is_ok() {
        return Ok(PRIVATE_ADDRESS);
    }
    // This sends nothing. The kernel selects the source address.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket
        .connect((PRIVATE_ADDRESS, 9))
        .context("this machine has no address but the loopback's")?;
    match socket.local_addr()?.ip() {
        std::net::IpAddr::V4(address) => Ok(address),
        std::net::IpAddr::V6(address) => anyhow::bail!("{address} is no IPv4 address"),
    }
}
