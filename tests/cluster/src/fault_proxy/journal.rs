//! What went through the proxy, in the order in which it came.

use std::fmt;
use std::time::SystemTime;

use http::Method;

/// One request as the proxy saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it came.
    pub at: SystemTime,
    /// `GET`, `PATCH` …
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// What follows the question mark, or nothing.
    pub query: String,
    /// Who says it is asking.
    pub user_agent: String,
    /// Which write of this proxy's life it was, counted from 1. A write is a POST, PUT, PATCH or DELETE that is meant
    /// to change something: no dry run, and no question in the form of a POST (may I? who am I?).
    pub write: Option<usize>,
    /// What was answered; nothing while it is under way, and when the connection was broken instead.
    pub status: Option<u16>,
    /// What the proxy did to it, if anything.
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
