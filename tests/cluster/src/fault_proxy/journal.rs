//! The requests that the proxy has received, in their order.

use std::fmt;
use std::time::SystemTime;

use http::Method;

/// A request that the proxy has received.
#[derive(Clone, Debug)]
pub struct Request {
    /// The time of its arrival.
    pub at: SystemTime,
    /// `GET`, `PATCH` …
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The query, or an empty string.
    pub query: String,
    /// The user agent.
    pub user_agent: String,
    /// The number of the write, counted from 1. A write is a POST, PUT, PATCH or DELETE that may change something. Dry
    /// runs and access reviews are not writes.
    pub write: Option<usize>,
    /// The status of the response. `None` while it is in flight, and when the connection broke.
    pub status: Option<u16>,
    /// The fault, if any.
    pub fault: Option<String>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.write {
            Some(write) => write!(f, "{write:>3} ")?,
            None => f.write_str("    ")?,
        }
        write!(f, "{:<6} {}", self.method, self.path)?;
        if !self.query.is_empty() {
            write!(f, "?{}", self.query)?;
        }
        match self.status {
            Some(status) => write!(f, " → {status}")?,
            None => f.write_str(" → no answer")?,
        }
        self.fault.iter().try_for_each(|fault| write!(f, "  [{fault}]"))
    }
}

pub(super) fn is_write(method: &Method, path: &str, query: &str) -> bool {
    const QUESTIONS: [&str; 5] = [
        "/selfsubjectaccessreviews",
        "/selfsubjectrulesreviews",
        "/selfsubjectreviews",
        "/subjectaccessreviews",
        "/tokenreviews",
    ];
    [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
        && !query.split('&').any(|pair| pair == "dryRun=All")
        && !QUESTIONS.iter().any(|question| path.ends_with(question))
}
