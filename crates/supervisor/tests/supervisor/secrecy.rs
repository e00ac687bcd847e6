//! No token is in an error, a log line or a trace, even if the server repeats it.

use std::any::Any;
use std::io::Write;
use std::sync::{Arc, Mutex};

use client::console::Console;
use supervisor::{Credential, PutResult, SupervisorKind, TokenValue};
use tracing_subscriber::fmt::MakeWriter;

use crate::server::{FakeServer, NEW, OLD, Recorded, Reply, options, reply, secret};

/// Keeps everything, of the request log and of the traces.
#[derive(Clone, Debug, Default)]
struct Everything(Arc<Mutex<String>>);

impl Everything {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn add(&self, text: &str) {
        let mut all = self.0.lock().unwrap();
        all.push_str(text);
        all.push('\n');
    }
}

impl Console for Everything {
    fn warn(&self, text: &str) {
        self.add(text);
    }

    fn verbosity(&self) -> u8 {
        9
    }

    fn log(&self, line: &str) {
        self.add(line);
    }

    fn is_interactive(&self) -> bool {
        false
    }

    fn lend_terminal(&self) -> Box<dyn Any + Send> {
        Box::new(())
    }
}

impl Write for Everything {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.add(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Everything {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A server that repeats what it gets.
fn echo(code: u16) -> impl Fn(&Recorded) -> Reply {
    move |request| {
        let login = request
            .headers
            .get("authorization")
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default();
        let message = format!("no: {login} {OLD} {}", request.body);
        reply(
            code,
            serde_json::json!({ "kind": "Status", "message": message }).to_string(),
        )
    }
}

#[tokio::test]
async fn no_error_log_or_trace_contains_a_token() {
    let all = Everything::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
    tracing_subscriber::util::SubscriberInitExt::init(subscriber.with_writer(all.clone()).with_ansi(false).finish());
    tracing::trace!("a trace of the test");
    let value = TokenValue::supplied(&secret(NEW)).unwrap();
    for code in [200, 400, 401, 500, 502] {
        let server = FakeServer::start(echo(code)).await;
        let supervisor = server
            .connect_with(SupervisorKind::K3s, options(Arc::new(all.clone())))
            .await;
        let result = supervisor.put_token(&secret(OLD), &value, || true).await;
        all.add(&format!("{result:?} {supervisor:?} {value:?}"));
        match result {
            PutResult::Accepted => {}
            PutResult::RefusedUnchanged(error)
            | PutResult::Failed(error)
            | PutResult::Unanswered(error)
            | PutResult::NotSent(error) => {
                assert!(error.to_string().contains("no: Basic <hidden> <hidden>"), "{error}");
                all.add(&format!("{error} {error:?}"));
                all.add(&format!("{:?}", client::error::Error::from(error)));
            }
        }
        let probe = supervisor.probe(Credential::Server(&secret(OLD))).await;
        let error = supervisor.encryption(&secret(OLD)).await.unwrap_err();
        all.add(&format!("{probe:?} {error} {error:?}"));
    }
    let text = all.text();
    assert!(
        text.contains("PUT /v1-k3s/token at 127.0.0.1:"),
        "the request log is missing: {text}"
    );
    assert!(text.contains("a trace of the test"), "traces are missing: {text}");
    for token in [OLD, NEW, "c2VydmVyOm9sZC1wYXNzd29yZC1vZi10aGUtc2VydmVy"] {
        assert!(!text.contains(token), "{token}: {text}");
    }
}

#[tokio::test]
async fn a_token_that_is_too_short_to_be_found_hides_the_message() {
    let server = FakeServer::start(|_| reply(500, r#"{"kind":"Status","message":"no: x"}"#)).await;
    let error = server.connect().await.encryption(&secret("x")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("answered 500 to GET /v1-k3s/encrypt/status"),
        "{error}"
    );
}
