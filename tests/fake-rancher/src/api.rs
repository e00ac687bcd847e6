//! A client of a real API server for the controllers: plain JSON in and out, and errors by what can be done about them.
//! Objects stay `serde_json::Value`, so that no field is lost.

use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum ApiError {
    NotFound,
    /// Conflict: the object has changed, and must be read again.
    Conflict,
    AlreadyExists,
    Other(String),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Conflict => f.write_str("conflict"),
            Self::AlreadyExists => f.write_str("already exists"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ApiError {}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// One API server, reached as its admin.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) client: Client,
}

/// The user agent. Its first word becomes the manager in managedFields.
const RANCHER: &str = "rancher/v0.0.0 (linux/amd64)";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl Api {
    async fn call(&self, method: Method, path: &str, content: &str, body: Option<&Value>) -> ApiResult<Value> {
        let bytes = body.map(ToString::to_string).unwrap_or_default().into_bytes();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content)
            .header("Accept", "application/json")
            .header("User-Agent", RANCHER)
            .body(Body::from(bytes))
            .map_err(|error| ApiError::Other(error.to_string()))?;
        let response = self
            .client
            .send(request)
            .await
            .map_err(|error| ApiError::Other(error.to_string()))?;
        let status = response.status();
        let bytes = response
            .into_body()
            .collect_bytes()
            .await
            .map_err(|error| ApiError::Other(error.to_string()))?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        Err(match (status.as_u16(), value["reason"].as_str()) {
            (404, _) => ApiError::NotFound,
            (409, Some("AlreadyExists")) => ApiError::AlreadyExists,
            (409, _) => ApiError::Conflict,
            (code, _) => ApiError::Other(format!(
                "{path}: {code} {}",
                value["message"].as_str().unwrap_or_default()
            )),
        })
    }

    /// Reads one object, if it exists.
    pub(crate) async fn get(&self, path: &str) -> ApiResult<Option<Value>> {
        match self.call(Method::GET, path, "application/json", None).await {
            Ok(value) => Ok(Some(value)),
            Err(ApiError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates in a collection.
    pub(crate) async fn create(&self, collection: &str, object: &Value) -> ApiResult<Value> {
        self.call(Method::POST, collection, "application/json", Some(object))
            .await
    }

    /// Creates an object. An existing one is not an error.
    pub(crate) async fn ensure(&self, collection: &str, object: &Value) -> ApiResult<()> {
        match self.create(collection, object).await {
            Ok(_) | Err(ApiError::AlreadyExists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// JSON merge patch. With `metadata.resourceVersion` in it, it is a compare-and-swap.
    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> ApiResult<Value> {
        self.call(Method::PATCH, path, MERGE, Some(patch)).await
    }

    /// A patch of another type.
    pub(crate) async fn patch(&self, path: &str, content: &str, patch: &Value) -> ApiResult<Value> {
        self.call(Method::PATCH, path, content, Some(patch)).await
    }

    /// Deletes an object. An absent one is not an error.
    pub(crate) async fn delete(&self, path: &str) -> ApiResult<()> {
        match self.call(Method::DELETE, path, "application/json", None).await {
            Ok(_) | Err(ApiError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Paths.
pub(crate) mod paths {
    const MANAGEMENT: &str = "/apis/management.cattle.io/v3";

    pub(crate) fn clusters() -> String {
        format!("{MANAGEMENT}/clusters")
    }
    pub(crate) fn cluster(id: &str) -> String {
        format!("{MANAGEMENT}/clusters/{id}")
    }
    pub(crate) fn crts(namespace: &str) -> String {
        format!("{MANAGEMENT}/namespaces/{namespace}/clusterregistrationtokens")
    }
    pub(crate) fn crt(namespace: &str, name: &str) -> String {
        format!("{}/{name}", crts(namespace))
    }
    pub(crate) fn settings() -> String {
        format!("{MANAGEMENT}/settings")
    }
    pub(crate) fn features() -> String {
        format!("{MANAGEMENT}/features")
    }
    pub(crate) fn namespaces() -> String {
        "/api/v1/namespaces".to_owned()
    }
    pub(crate) fn namespace(name: &str) -> String {
        format!("/api/v1/namespaces/{name}")
    }
    pub(crate) fn secrets(namespace: &str) -> String {
        format!("/api/v1/namespaces/{namespace}/secrets")
    }
    pub(crate) fn secret(namespace: &str, name: &str) -> String {
        format!("{}/{name}", secrets(namespace))
    }
    pub(crate) fn config_map(namespace: &str, name: &str) -> String {
        format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
    }
    pub(crate) fn deployment(namespace: &str) -> String {
        format!("/apis/apps/v1/namespaces/{namespace}/deployments/cattle-cluster-agent")
    }
}

/// Reading inside objects.
pub(crate) mod read {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::Value;

    /// The text at a JSON pointer, "" if there is none.
    pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
        object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
        object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
    }

    pub(crate) fn name(object: &Value) -> &str {
        text(object, "/metadata/name")
    }

    pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
        object["metadata"]["annotations"][key].as_str().unwrap_or_default()
    }

    pub(crate) fn time(text: &str) -> Option<Timestamp> {
        text.parse().ok()
    }

    /// A value of a Secret, decoded.
    pub(crate) fn secret(secret: &Value, key: &str) -> Option<String> {
        let encoded = secret["data"][key].as_str()?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
    }

    /// For `data` of a Secret.
    pub(crate) fn encode(text: &str) -> Value {
        STANDARD.encode(text).into()
    }

    /// The status of a condition, "" if it was never set.
    pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
        object["status"]["conditions"]
            .as_array()
            .and_then(|conditions| conditions.iter().find(|condition| condition["type"] == kind))
            .map(|condition| text(condition, "/status"))
            .unwrap_or_default()
    }
}
