//! Faults, and the requests that they apply to.

use std::time::{Duration, Instant};

use http::Method;
use tokio::sync::watch;

use super::journal::is_write;

/// The requests that a fault applies to: the n-th match, and possibly the matches after it.
#[derive(Clone, Debug)]
pub struct On {
    writes: Option<bool>,
    method: Option<Method>,
    path: Option<String>,
    first: usize,
    times: usize,
}

impl On {
    /// The first request of any kind.
    pub fn request() -> Self {
        Self {
            writes: None,
            method: None,
            path: None,
            first: 1,
            times: 1,
        }
    }

    /// The first write. [`Request::write`](super::Request::write) defines what a write is.
    pub fn write() -> Self {
        Self {
            writes: Some(true),
            ..Self::request()
        }
    }

    /// The first read.
    pub fn read() -> Self {
        Self {
            writes: Some(false),
            ..Self::request()
        }
    }

    /// Only this method: `PATCH`.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Only paths, without the query, that match the whole pattern. `*` matches anything: `*/leases/*`.
    #[must_use]
    pub fn path(mut self, pattern: impl Into<String>) -> Self {
        self.path = Some(pattern.into());
        self
    }

    /// The n-th match, counted from 1 since the fault was planned.
    #[must_use]
    pub fn nth(mut self, nth: usize) -> Self {
        self.first = nth.max(1);
        self
    }

    /// This many matches in a row.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// All matches from there on.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    pub(super) fn fits(&self, method: &Method, path: &str, query: &str) -> bool {
        self.writes.is_none_or(|writes| writes == is_write(method, path, query))
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.path.as_ref().is_none_or(|pattern| glob(pattern, path))
    }
}

/// Before or after the server has processed the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The server has not received it.
    Before,
    /// The server has responded, and the client has not received the response.
    After,
}

/// The effect of a fault.
#[derive(Clone, Debug)]
pub enum Fault {
    /// SIGKILL ends the victim. The request or the response is dropped.
    Kill(Moment),
    /// SIGSTOP pauses the victim. The proxy holds the request or the response until [`Planned::release`].
    Stop(Moment),
    /// The server does not receive it. The client gets this status with a `kind: Status` body as Kubernetes writes it.
    Answer {
        /// 409, 429, 500, 503 …
        status: u16,
        /// A `Retry-After` header, in whole seconds.
        retry_after: Option<Duration>,
    },
    /// The server does not receive it. The client gets this status and this JSON body.
    Say {
        /// 200, 500 …
        status: u16,
        /// The body.
        body: String,
    },
    /// The server processes it, and the connection breaks before the client gets the response.
    LoseAnswer,
    /// The connection breaks in the middle of the response body.
    Cut,
    /// The proxy holds it for this duration.
    Stall(Duration),
    /// From this request on, all requests under the prefix are rejected for a while, and open streams under it break.
    Away(Outage),
}

impl Fault {
    /// Whether the server has processed the request when it happens.
    pub(super) fn is_after(&self) -> bool {
        matches!(
            self,
            Self::Kill(Moment::After) | Self::Stop(Moment::After) | Self::LoseAnswer | Self::Cut
        )
    }
}

/// An outage of a part of a server.
#[derive(Clone, Debug)]
pub struct Outage {
    /// The prefix of the path: `/k8s/clusters/c-abcde/`.
    pub prefix: String,
    /// The duration.
    pub lasts: Duration,
    /// The status of the responses. Without it, connections break.
    pub status: Option<u16>,
}

/// A planned fault, and whether it has happened.
#[derive(Clone, Debug)]
pub struct Planned {
    struck: watch::Receiver<usize>,
    pub(super) released: watch::Sender<bool>,
}

impl Planned {
    /// How often it has happened.
    pub fn struck(&self) -> usize {
        *self.struck.borrow()
    }

    /// Returns when it has happened for the first time, or when the proxy is dropped.
    pub async fn strikes(&self) {
        let _ = self.struck.clone().wait_for(|struck| *struck > 0).await;
    }

    /// Releases what [`Fault::Stop`] holds. The test continues the victim itself, before or after.
    pub fn release(&self) {
        self.released.send_replace(true);
    }
}

pub(super) struct Rule {
    on: On,
    fault: Fault,
    seen: usize,
    struck: watch::Sender<usize>,
    planned: Planned,
}

impl Rule {
    pub(super) fn new(on: On, fault: Fault) -> (Self, Planned) {
        let (struck, receiver) = watch::channel(0);
        let planned = Planned {
            struck: receiver,
            released: watch::Sender::new(false),
        };
        (
            Self {
                on,
                fault,
                seen: 0,
                struck,
                planned: planned.clone(),
            },
            planned,
        )
    }

    /// Counts the request if it matches, and returns the fault for it.
    pub(super) fn strike(&mut self, method: &Method, path: &str, query: &str) -> Option<(Fault, Planned)> {
        if !self.on.fits(method, path, query) {
            return None;
        }
        self.seen += 1;
        let strikes = self.seen >= self.on.first && self.seen - self.on.first < self.on.times;
        strikes.then(|| (self.fault.clone(), self.planned.clone()))
    }

    pub(super) fn is(&self, planned: &Planned) -> bool {
        self.planned.released.same_channel(&planned.released)
    }

    pub(super) fn has_struck(&self) {
        self.struck.send_modify(|struck| *struck += 1);
    }
}

/// An outage in progress.
pub(super) struct Begun {
    pub(super) outage: Outage,
    pub(super) until: Instant,
}

/// Whether the pattern matches the whole text. `*` matches anything.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text
            .strip_prefix(head)
            .is_some_and(|tail| (0..=tail.len()).any(|at| tail.is_char_boundary(at) && glob(rest, &tail[at..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(glob("/api/v1/*/pods", "/api/v1/namespaces/x/pods"));
        assert!(glob("*/leases/*", "/apis/coordination.k8s.io/v1/namespaces/x/leases/y"));
        assert!(!glob("/api/v1/*/pods", "/api/v1/namespaces/x/pods/z"));
    }

    #[test]
    fn a_rule_applies_to_the_given_number_of_matching_requests_from_the_nth_on() {
        let (mut rule, _) = Rule::new(On::write().path("/a*").nth(2).times(2), Fault::Cut);
        let mut strikes = |method, path| rule.strike(&method, path, "").is_some();
        assert!(!strikes(Method::POST, "/a1"));
        assert!(!strikes(Method::GET, "/a2"));
        assert!(!strikes(Method::POST, "/b"));
        assert!(strikes(Method::POST, "/a3"));
        assert!(strikes(Method::PATCH, "/a4"));
        assert!(!strikes(Method::PATCH, "/a5"));
    }
}
