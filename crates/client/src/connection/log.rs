//! The request log of `-v`: 6 shows each request and its outcome, 8 the headers too. Bodies are never shown, nor are
//! credentials in URLs or headers.

use std::sync::Arc;
use std::time::Instant;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use http::{HeaderMap, Request, Response};
use kube::client::Body;

use super::Connection;
use crate::console::Console;
use crate::error::Error;
use crate::redact;

/// A request in flight.
pub(super) struct Attempt {
    console: Arc<dyn Console>,
    what: String,
    began: Instant,
}

impl Attempt {
    pub(super) fn begin(connection: &Connection, request: &Request<Body>) -> Self {
        let console = Arc::clone(&connection.environment.console);
        let what = if console.verbosity() >= 6 {
            let base = connection.server.as_str().trim_end_matches('/');
            format!(
                "{} {}",
                request.method(),
                redact::url(&format!("{base}{}", request.uri()))
            )
        } else {
            String::new()
        };
        headers(console.as_ref(), "Request", request.headers());
        Self {
            console,
            what,
            began: Instant::now(),
        }
    }

    pub(super) fn end(self, outcome: &Result<Response<Body>, Error>) {
        if self.console.verbosity() < 6 {
            return;
        }
        let took = self.began.elapsed().as_millis();
        self.console.log(&match outcome {
            Ok(response) => format!("{} {} in {took} milliseconds", self.what, response.status()),
            Err(error) => format!("{} failed in {took} milliseconds: {}", self.what, error.message),
        });
        if let Ok(response) = outcome {
            headers(self.console.as_ref(), "Response", response.headers());
        }
    }
}

fn headers(console: &dyn Console, of: &str, headers: &HeaderMap) {
    if console.verbosity() < 8 {
        return;
    }
    let lines = headers.iter().map(|(name, value)| {
        let secret = value.is_sensitive() || [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SET_COOKIE].contains(name);
        let value = if secret {
            "<masked>".into()
        } else {
            redact::text(&String::from_utf8_lossy(value.as_bytes()))
        };
        format!("\n    {name}: {value}")
    });
    console.log(&format!("{of} Headers:{}", lines.collect::<String>()));
}
