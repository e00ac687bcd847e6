//! A mock of an API server, or of Rancher, for unit tests. It has no network: its client calls it directly.
//!
//! ```
//! # #[tokio::main] async fn main() {
//! use mock_api_server::MockApiServer;
//! use serde_json::json;
//! let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "",
//!     "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
//! let server = MockApiServer::new().on("GET", "/version", 200, &version);
//! assert_eq!(server.client().apiserver_version().await.unwrap().minor, "36");
//! assert_eq!(server.only_request().target, "/version");
//! # }
//! ```

#![expect(clippy::unwrap_used, reason = "a mistake in a test may panic")]

use std::sync::{Arc, Mutex, MutexGuard};

use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// A request that the mock has received.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and the query, still encoded.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The JSON body. `Null` if there is none.
    pub body: Value,
}

impl Request {
    async fn read(request: http::Request<Body>) -> Self {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        // kube leaves a lone `?` or `&` where there are no parameters.
        let target = head.uri.to_string().replace("?&", "?");
        Self {
            method: head.method,
            target: target.trim_end_matches('?').to_owned(),
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The value of a header, if the request has it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What the mock does with a request.
#[derive(Debug)]
pub enum Reply {
    /// Sends this response.
    Response(Response<Body>),
    /// Closes the connection without a response.
    Cut,
    /// Never responds.
    Hang,
}

impl Reply {
    /// A response with a JSON body.
    pub fn json(code: u16, body: &Value) -> Self {
        Self::text(code, &[], body.to_string())
    }

    /// A response with headers and any body.
    pub fn text(code: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let mut response = Response::builder().status(code);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        Self::Response(response.body(Body::from(body.into())).unwrap())
    }
}

/// A `Status` object, as an API server returns it with an error.
pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    })
}

/// A list of objects.
pub fn list(items: &[Value]) -> Value {
    json!({ "kind": "List", "metadata": { "resourceVersion": "1" }, "items": items })
}

/// A client whose requests this function answers.
pub fn client(mut reply: impl FnMut(&Request) -> Reply + Send + 'static) -> Client {
    let (service, mut handle) = tower_test::mock::pair::<http::Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        let mut hanging = Vec::new();
        while let Some((request, send)) = handle.next_request().await {
            match reply(&Request::read(request).await) {
                Reply::Response(response) => send.send_response(response),
                Reply::Cut => send.send_error("connection closed before message completed"),
                // Dropping it would cut the connection.
                Reply::Hang => hanging.push(send),
            }
        }
    });
    Client::new(service, "default")
}

/// A server that responds to each expected request once, and records all requests.
#[derive(Clone, Default)]
pub struct MockApiServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    expected: Vec<(Method, String, Reply)>,
    received: Vec<Request>,
    unexpected: Vec<String>,
}

impl MockApiServer {
    /// Expects no request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Expects a request with exactly this target, and responds with JSON. Requests with the same target get the responses
    /// in the order of these calls.
    #[must_use]
    pub fn on(self, method: &str, target: &str, code: u16, body: &Value) -> Self {
        self.on_reply(method, target, Reply::json(code, body))
    }

    /// The same with headers and any body.
    #[must_use]
    pub fn on_text(
        self,
        method: &str,
        target: &str,
        code: u16,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Self {
        self.on_reply(method, target, Reply::text(code, headers, body))
    }

    /// Expects a request, and closes the connection.
    #[must_use]
    pub fn on_cut(self, method: &str, target: &str) -> Self {
        self.on_reply(method, target, Reply::Cut)
    }

    fn on_reply(self, method: &str, target: &str, reply: Reply) -> Self {
        let expected = (method.parse().unwrap(), target.to_owned(), reply);
        self.state().expected.push(expected);
        self
    }

    /// A client of this server.
    pub fn client(&self) -> Client {
        let server = self.clone();
        client(move |request| server.reply(request))
    }

    fn reply(&self, request: &Request) -> Reply {
        let mut state = self.state();
        state.received.push(request.clone());
        let expected = state
            .expected
            .iter()
            .position(|(method, target, _)| *method == request.method && *target == request.target);
        if let Some(index) = expected {
            return state.expected.remove(index).2;
        }
        state.unexpected.push(format!("{} {}", request.method, request.target));
        Reply::text(599, &[], "")
    }

    /// All requests, in their order. Panics if a request was not expected, or an expected one was not received.
    #[track_caller]
    pub fn requests(&self) -> Vec<Request> {
        let state = self.state();
        assert!(state.unexpected.is_empty(), "not expected: {:#?}", state.unexpected);
        let missing: Vec<_> = state
            .expected
            .iter()
            .map(|(method, target, _)| format!("{method} {target}"))
            .collect();
        assert!(missing.is_empty(), "not received: {missing:#?}");
        state.received.clone()
    }

    /// The only request. Panics like [`requests`](Self::requests), and if there are several.
    #[track_caller]
    pub fn only_request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.remove(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}
