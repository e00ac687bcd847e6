//! A server that responds to each expected request once, records it, and fails the test at any other request.

use std::sync::{Arc, Mutex};

use argocd::{ClusterSecret, cluster_secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) target: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct State {
    expected: Vec<(Method, String, u16, String)>,
    received: Vec<ReceivedRequest>,
    unexpected: Vec<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

impl Server {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Expects a request with this path and query, and responds to it.
    pub(crate) fn on(self, method: &str, target: &str, code: u16, body: &Value) -> Self {
        self.on_text(method, target, code, &body.to_string())
    }

    pub(crate) fn on_text(self, method: &str, target: &str, code: u16, body: &str) -> Self {
        let expected = (method.parse().unwrap(), target.to_owned(), code, body.to_owned());
        self.0.lock().unwrap().expected.push(expected);
        self
    }

    pub(crate) fn client(&self) -> kube::Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            while let Some((request, responder)) = handle.next_request().await {
                responder.send_response(server.respond(request).await);
            }
        });
        kube::Client::new(service, "default")
    }

    async fn respond(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        // kube leaves a lone `?` or `&` where there are no parameters.
        let target = head.uri.to_string().replace("?&", "?");
        let target = target.trim_end_matches('?').to_owned();
        let mut state = self.0.lock().unwrap();
        state.received.push(ReceivedRequest {
            target: target.clone(),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        });
        let is = |expected: &(Method, String, u16, String)| expected.0 == head.method && expected.1 == target;
        let (code, body) = if let Some(index) = state.expected.iter().position(is) {
            let (_, _, code, body) = state.expected.remove(index);
            (code, body)
        } else {
            state.unexpected.push(format!("{} {target}", head.method));
            (599, String::new())
        };
        Response::builder()
            .status(code)
            .body(Body::from(body.into_bytes()))
            .unwrap()
    }

    /// All requests, if they are as expected.
    #[track_caller]
    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        let state = self.0.lock().unwrap();
        assert!(
            state.unexpected.is_empty(),
            "unexpected requests: {:#?}",
            state.unexpected
        );
        let missing: Vec<_> = state
            .expected
            .iter()
            .map(|(method, target, ..)| (method, target))
            .collect();
        assert!(missing.is_empty(), "missing requests: {missing:#?}");
        state.received.clone()
    }
}

/// A token without any use.
pub(crate) const TOKEN: &str = "token-x7k2p:dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87";
pub(crate) const SERVER: &str = "https://rancher.example.com/k8s/clusters/c-m-abc12345";
pub(crate) const LIST: &str =
    "/api/v1/namespaces/argocd/secrets?labelSelector=argocd.argoproj.io%2Fsecret-type%3Dcluster&limit=500";

pub(crate) fn encoded(text: &str) -> String {
    STANDARD.encode(text)
}

/// A cluster Secret as `argocd admin cluster generate-spec` of Argo CD 3.5.1 writes it, but for `managedFields`.
pub(crate) fn secret(name: &str, data: &Value) -> Value {
    let mut encoded_data = json!({
        "config": encoded(&format!(r#"{{"bearerToken":"{TOKEN}","tlsClientConfig":{{"insecure":false}}}}"#)),
        "name": encoded("one"), "server": encoded(SERVER),
    });
    for (key, text) in data.as_object().unwrap() {
        encoded_data[key] = encoded(text.as_str().unwrap()).into();
    }
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": encoded_data,
        "metadata": {
            "name": name, "namespace": "argocd", "uid": format!("uid-of-{name}"), "resourceVersion": "42",
            "creationTimestamp": "2026-11-22T10:00:00Z",
            "labels": {"argocd.argoproj.io/secret-type": "cluster", "team": "blue"},
            "annotations": {"managed-by": "argocd.argoproj.io"},
        },
    })
}

pub(crate) fn list_of(items: &[Value]) -> Value {
    json!({"kind": "List", "metadata": {}, "items": items})
}

/// Reads these cluster Secrets.
pub(crate) async fn read(items: &[Value]) -> Vec<ClusterSecret> {
    let server = Server::new().on("GET", LIST, 200, &list_of(items));
    cluster_secret::list(&server.client(), "argocd").await.unwrap()
}

pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}
