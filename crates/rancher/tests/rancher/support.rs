//! A server that answers each expected request once and records it. It fails the test on an unexpected request, and on an expected
//! one that was not sent.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use rancher::{ClusterId, Observed, Write};
use serde_json::{Value, json};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// Path and query, not decoded.
    pub(crate) target: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Value,
}

enum Reply {
    Response(Response<Body>),
    /// The connection is cut.
    Cut,
}

#[derive(Default)]
struct State {
    expected: Vec<(Method, String, Reply)>,
    recorded: Vec<Recorded>,
    unexpected: Vec<String>,
}

/// The server.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

impl Server {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Expects a request, and answers it with JSON. Requests of the same target are answered in the order of the calls.
    pub(crate) fn on(self, method: &str, target: &str, code: u16, body: &Value) -> Self {
        self.on_text(method, target, code, &[], body.to_string())
    }

    pub(crate) fn on_text(
        self,
        method: &str,
        target: &str,
        code: u16,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Self {
        let mut response = Response::builder().status(code);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(Body::from(body.into())).unwrap();
        self.expect(method, target, Reply::Response(response))
    }

    pub(crate) fn on_cut(self, method: &str, target: &str) -> Self {
        self.expect(method, target, Reply::Cut)
    }

    fn expect(self, method: &str, target: &str, reply: Reply) -> Self {
        self.0
            .lock()
            .unwrap()
            .expected
            .push((method.parse().unwrap(), target.to_owned(), reply));
        self
    }

    /// A client of it.
    pub(crate) fn client(&self) -> kube::Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            while let Some((request, answer)) = handle.next_request().await {
                match server.answer(request).await {
                    Reply::Response(response) => answer.send_response(response),
                    Reply::Cut => answer.send_error("connection closed before message completed"),
                }
            }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Reply {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        // kube leaves a lone `?` or `&` where there are no parameters.
        let target = head.uri.to_string().replace("?&", "?");
        let target = target.trim_end_matches('?').to_owned();
        let mut state = self.0.lock().unwrap();
        state.recorded.push(Recorded {
            target: target.clone(),
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        });
        let expected = state
            .expected
            .iter()
            .position(|(method, wanted, _)| *method == head.method && *wanted == target);
        if let Some(index) = expected {
            state.expected.remove(index).2
        } else {
            state.unexpected.push(format!("{} {target}", head.method));
            Reply::Response(Response::builder().status(599).body(Body::empty()).unwrap())
        }
    }

    /// All requests. Panics unless all were expected and all expected ones were sent.
    #[track_caller]
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        let state = self.0.lock().unwrap();
        assert!(state.unexpected.is_empty(), "not expected: {:#?}", state.unexpected);
        let missing: Vec<_> = state
            .expected
            .iter()
            .map(|(method, target, _)| format!("{method} {target}"))
            .collect();
        assert!(missing.is_empty(), "never sent: {missing:#?}");
        state.recorded.clone()
    }

    /// The only request.
    #[track_caller]
    pub(crate) fn only(&self) -> Recorded {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.remove(0)
    }
}

/// A fixture, as JSON.
pub(crate) fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// One registration token of a fixture.
pub(crate) fn token_of(list: &str, name: &str) -> Value {
    let list = fixture(list);
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["metadata"]["name"] == name)
        .unwrap()
        .clone()
}

pub(crate) fn list_of(items: &[Value]) -> Value {
    json!({ "kind": "List", "metadata": { "resourceVersion": "1" }, "items": items })
}

pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message })
}

pub(crate) fn id(text: &str) -> ClusterId {
    text.parse().unwrap()
}

pub(crate) fn observed(namespace: &str, name: &str) -> Observed {
    Observed {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: "7-of-9".to_owned(),
        resource_version: "42".to_owned(),
    }
}

/// The field manager of the tests.
pub(crate) fn write() -> Write {
    Write::by("kubectl-crt")
}

/// The throw-away tokens of the agents in the fixtures, by token storage.
pub(crate) const SECRET_TOKEN: &str = "dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87";
pub(crate) const STATUS_TOKEN: &str = "hscr8x6m2czbwj6f9fvc2hbwrzn54mk8q6zvf7qgtmxtjsbxppplzf";
