//! The identity of the cluster behind an API server. Addresses, contexts and names do not identify it.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::connection::certificates;
use crate::request::{self, Error, Metadata, Resource, Result, Verb};

/// The namespace that every cluster has and that cannot be deleted.
pub const SYSTEM_NAMESPACE: &str = "kube-system";

const NAMESPACE: Resource = Resource::new("Namespace", "v1", "namespaces");
const CONFIG_MAP: Resource = Resource::new("ConfigMap", "v1", "configmaps");

/// The ConfigMap that kube-controller-manager publishes the cluster's CA with, in every namespace.
/// (`pkg/controller/certificates/rootcacertpublisher`, Kubernetes 1.36.)
const ROOT_CA: &str = "kube-root-ca.crt";

/// The identity of a cluster: the uid of namespace `kube-system`, whatever the address of the API server.
///
/// A cluster that was restored from a backup of another cluster has the same uid.
pub async fn uid(client: &kube::Client) -> Result<String> {
    #[derive(Deserialize)]
    struct Namespace {
        metadata: Metadata,
    }
    let object = || NAMESPACE.named(None, Some(SYSTEM_NAMESPACE));
    let found: Option<Namespace> = request::get(client, NAMESPACE, None, SYSTEM_NAMESPACE).await?;
    match found.map(|namespace| namespace.metadata.uid) {
        Some(uid) if !uid.is_empty() => Ok(uid),
        Some(_) => Err(Error::senseless(Verb::Get, object())),
        None => {
            let status = kube::core::Status::failure("not found", "NotFound").with_code(404);
            Err(Error::failed(Verb::Get, object(), kube::Error::Api(status.boxed())))
        }
    }
}

/// The CA certificates that a cluster publishes in a namespace ([`SYSTEM_NAMESPACE`] will do), as PEM. `None` if there is
/// no such ConfigMap or no certificate in it.
pub async fn root_ca(client: &kube::Client, namespace: &str) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct ConfigMap {
        data: Option<BTreeMap<String, String>>,
    }
    let found: Option<ConfigMap> = request::get(client, CONFIG_MAP, Some(namespace), ROOT_CA).await?;
    let pem = found.and_then(|map| map.data?.remove("ca.crt"));
    Ok(pem.filter(|pem| !pem.trim().is_empty()))
}

/// How the CA certificates of two sources compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaComparison {
    /// Both have exactly the same certificates.
    Same,
    /// One has a certificate that the other does not have. During a rotation of the CA that can still be the same cluster.
    Different,
    /// One of them is empty, or not certificates.
    Unknown,
}

/// Compares two bundles of CA certificates by the certificates' content: order, repetitions, white space and comments do
/// not matter. Each is PEM, or PEM in base64 as in `status.caCert` of Rancher's Cluster (seen on Rancher 2.15.0).
///
/// One certificate in common is not enough: clusters of K3s and RKE2 can be set up with the same root CA.
pub fn same_ca(one: &str, other: &str) -> CaComparison {
    match (bundle(one), bundle(other)) {
        (Some(one), Some(other)) if one == other => CaComparison::Same,
        (Some(_), Some(_)) => CaComparison::Different,
        _ => CaComparison::Unknown,
    }
}

/// The certificates, DER.
fn bundle(text: &str) -> Option<BTreeSet<Vec<u8>>> {
    let pem = if text.contains("-----BEGIN ") {
        text.to_owned()
    } else {
        let text: String = text.split_whitespace().collect();
        String::from_utf8(STANDARD.decode(text).ok()?).ok()?
    };
    let lines: Vec<&str> = pem.lines().map(str::trim).collect();
    let certificates = certificates(&lines.join("\n")).ok()?;
    let is_certificate = |der: &Vec<u8>| X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
    certificates
        .iter()
        .all(is_certificate)
        .then(|| certificates.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    /// A server that answers one request, with what was asked.
    fn server(code: u16, text: &str) -> (kube::Client, tokio::task::JoinHandle<String>) {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let body = text.as_bytes().to_vec();
        let asked = tokio::spawn(async move {
            let (request, answer) = handle.next_request().await.unwrap();
            answer.send_response(Response::builder().status(code).body(Body::from(body)).unwrap());
            request.uri().to_string()
        });
        (kube::Client::new(service, "default"), asked)
    }

    #[tokio::test]
    async fn a_cluster_is_known_by_the_uid_of_kube_system() {
        let (client, asked) = server(200, r#"{"metadata":{"name":"kube-system","uid":"41c0"}}"#);
        assert_eq!(uid(&client).await.unwrap(), "41c0");
        assert_eq!(asked.await.unwrap(), "/api/v1/namespaces/kube-system");
    }

    #[rstest]
    #[case::forbidden(
        403,
        r#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"no"}"#,
        "Error from server (Forbidden): cannot read Namespace kube-system on the downstream cluster: no"
    )]
    #[case::missing(
        404,
        "",
        "Error from server (NotFound): cannot read Namespace kube-system on the downstream cluster: not found"
    )]
    #[case::without_uid(
        200,
        r#"{"metadata":{}}"#,
        "error: could not read Namespace kube-system: malformed response at line 0, column 0"
    )]
    #[tokio::test]
    async fn without_a_uid_there_is_an_error(#[case] code: u16, #[case] text: &str, #[case] expected: &str) {
        let (client, _) = server(code, text);
        let error = uid(&client).await.unwrap_err();
        assert_eq!(error.on("the downstream cluster").to_string(), expected);
    }

    #[rstest]
    #[case::published(200, json!({ "data": { "ca.crt": "PEM\n" } }), Some("PEM\n"))]
    #[case::empty(200, json!({ "data": { "ca.crt": "\n" } }), None)]
    #[case::without_key(200, json!({ "data": {} }), None)]
    #[case::without_data(200, json!({}), None)]
    #[case::missing(404, json!({}), None)]
    #[tokio::test]
    async fn the_ca_is_read_where_the_cluster_publishes_it(
        #[case] code: u16,
        #[case] map: serde_json::Value,
        #[case] expected: Option<&str>,
    ) {
        let (client, asked) = server(code, &map.to_string());
        let pem = root_ca(&client, SYSTEM_NAMESPACE).await.unwrap();
        assert_eq!(pem.as_deref(), expected);
        let path = asked.await.unwrap();
        assert_eq!(path, "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt");
    }

    fn ca() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        // What two clusters of K3s have in common: names and serial numbers do not tell them apart.
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.serial_number = Some(1.into());
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn the_same_ca_is_recognised_in_another_form() {
        let (a, b) = (ca(), ca());
        let forms = [
            format!("{a}{b}"),
            format!("{b}\n\n{a}{b}"),
            format!("\n# of the cluster\n  {a}\n{}", b.replace('\n', "\r\n")),
            STANDARD.encode(format!("{b}{a}")),
            format!(" {}\n", STANDARD.encode(format!("{a}{b}\n"))),
        ];
        for form in &forms {
            assert_eq!(same_ca(&forms[0], form), CaComparison::Same, "{form}");
            assert_eq!(same_ca(form, &forms[0]), CaComparison::Same, "{form}");
        }
    }

    #[test]
    fn another_ca_is_different() {
        let (a, b) = (ca(), ca());
        assert_eq!(same_ca(&a, &b), CaComparison::Different);
        assert_eq!(same_ca(&a, &STANDARD.encode(&b)), CaComparison::Different);
        // The same root, and a CA of its own beside it.
        assert_eq!(same_ca(&a, &format!("{a}{b}")), CaComparison::Different);
    }

    #[test]
    fn invalid_certificates_compare_as_unknown() {
        let a = ca();
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let cut = &a[..a.len() / 2];
        for none in ["", " \n", "none", "AAAA", not_der, &key, cut, &format!("{a}{not_der}")] {
            assert_eq!(same_ca(&a, none), CaComparison::Unknown, "{none}");
            assert_eq!(same_ca(none, &a), CaComparison::Unknown, "{none}");
            assert_eq!(same_ca(none, none), CaComparison::Unknown, "{none}");
        }
    }
}
