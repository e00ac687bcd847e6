//! The Secrets `cattle-credentials-<hash>`, from which agents read URL and token.
//!
//! Once an hour an agent deletes those that its Deployment does not name and that are older than an hour (since Rancher 2.9.9,
//! 2.10.5, 2.11.1; `pkg/agent/clean/credentials.go`). Older agents never do.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::request::{self, ListOptions, SECRET};
use client::secret::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::NAMESPACE;
use crate::credential_name::{Formula, PREFIX};
use crate::error::{Error, Result};
use crate::object::{self, Observed, Problem, WRONG_TYPE, Write, decoded};

/// One such Secret.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Name, uid and version of the object.
    pub object: Observed,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// Where the agent connects to.
    pub url: Option<String>,
    /// The registration token.
    pub token: Option<Secret>,
    /// The cluster's id, or empty in a Secret from the import manifest.
    pub namespace: String,
    /// Invalid values.
    pub problems: Vec<Problem>,
}

impl Credentials {
    /// The formula by which it was named. None: it was named by hand, or a value is missing.
    pub fn formula(&self) -> Option<Formula> {
        Formula::recognise(
            &self.object.name,
            self.url.as_deref()?,
            self.token.as_ref()?,
            &self.namespace,
        )
    }
}

type RawSecret = object::RawSecret<RawData>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawData {
    url: Option<String>,
    token: Option<String>,
    namespace: Option<String>,
}

impl RawSecret {
    fn read(self) -> Credentials {
        let data = self.data.unwrap_or_default();
        let mut problems = Vec::from_iter(self.broken.then_some(WRONG_TYPE));
        let mut text = |encoded: Option<String>, field| decoded(encoded.as_deref(), field, &mut problems);
        let url = text(data.url, "data.url");
        let token = text(data.token, "data.token");
        let namespace = text(data.namespace, "data.namespace");
        if token.as_ref().is_some_and(|token| token.trim() != token) {
            // Typical of a value that was encoded by hand. Rancher compares byte by byte.
            problems.push(Problem {
                field: "data.token",
                what: "has leading or trailing white space",
            });
        }
        Credentials {
            object: self.metadata.observed(),
            created: self.metadata.created(),
            deleting: self.metadata.deletion_timestamp.is_some(),
            url,
            token: token.map(Secret::new),
            namespace: namespace.unwrap_or_default(),
            problems,
        }
    }
}

/// The content of such a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsContent {
    /// Where the agent connects to.
    pub url: String,
    /// The registration token.
    pub token: Secret,
    /// The cluster's id, or empty. Part of the name.
    pub namespace: String,
}

/// A Secret by its name. None if it does not exist.
pub async fn credentials(client: &kube::Client, name: &str) -> Result<Option<Credentials>> {
    let raw: Option<RawSecret> = request::get(client, SECRET, Some(NAMESPACE), name).await?;
    Ok(raw.map(RawSecret::read))
}

/// The Secrets with this annotation, without their content. Without permission to list Secrets: none.
pub async fn annotated_credentials(client: &kube::Client, (key, value): (&str, &str)) -> Result<Vec<Observed>> {
    let options = ListOptions {
        namespace: Some(NAMESPACE),
        only_metadata: true,
        ..ListOptions::default()
    };
    let secrets = match request::list_all::<RawSecret>(client, SECRET, &options).await {
        Err(error) if error.is_forbidden() => return Ok(Vec::new()),
        other => other?,
    };
    let metadata = secrets.into_iter().map(|secret| secret.metadata);
    let annotated = metadata.filter(|metadata| {
        metadata.name.starts_with(PREFIX)
            && metadata.deletion_timestamp.is_none()
            && metadata.annotation(key) == Some(value)
    });
    Ok(annotated.map(|metadata| metadata.observed()).collect())
}

/// All metadata of such a Secret. None if it does not exist.
pub async fn credentials_metadata(client: &kube::Client, name: &str) -> Result<Option<ObjectMeta>> {
    Ok(request::get_metadata(client, SECRET, Some(NAMESPACE), name).await?)
}

/// Creates a Secret for the agent. If one of that name exists, it is a conflict ([`Error::is_already_exists`]): read it.
pub async fn create_credentials(
    client: &kube::Client,
    name: &str,
    content: &CredentialsContent,
    annotations: &BTreeMap<String, String>,
    write: &Write,
) -> Result<Credentials> {
    if content.token.expose().trim().is_empty() {
        return Err(Error::BlankToken);
    }
    let mut body = json!({
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": { "name": name, "namespace": NAMESPACE },
        "type": "Opaque",
        "data": {
            "url": STANDARD.encode(&content.url),
            "token": STANDARD.encode(content.token.expose()),
            "namespace": STANDARD.encode(&content.namespace),
        },
    });
    if !annotations.is_empty() {
        body["metadata"]["annotations"] = json!(annotations);
    }
    let raw: RawSecret = request::create(client, SECRET, Some(NAMESPACE), name, &body, write).await?;
    Ok(raw.read())
}

/// Deletes such a Secret. Pods that have mounted it keep running until they restart.
pub async fn delete_credentials(client: &kube::Client, secret: &Observed, write: &Write) -> Result<()> {
    Ok(request::delete(client, SECRET, secret, write).await?)
}
