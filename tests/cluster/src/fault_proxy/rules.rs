//! What shall go wrong, and at which request.

use std::time::{Duration, Instant};

use http::Method;
use tokio::sync::watch;

use super::journal::is_write;

/// Which requests a fault is meant for: the n-th (and as many after it) of those that fit.
#[derive(Clone, Debug)]
pub struct On {
    writes: Option<bool>,
    method: Option<Method>,
    path: Option<String>,
    first: usize,
    times: usize,
}

impl On {
    /// The first request of any kind; narrow it down from here.
    pub fn request() -> Self {
        Self {
            writes: None,
            method: None,
            path: None,
            first: 1,
            times: 1,
        }
    }

    /// The first write ([`Request::write`](super::Request::write) says what counts as one).
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

    /// Only paths (without the query) that fit the pattern as a whole; `*` stands for anything: `*/leases/*`.
    #[must_use]
    pub fn path(mut self, pattern: impl Into<String>) -> Self {
        self.path = Some(pattern.into());
        self
    }

    /// Not the first one that fits, but this one. Counted from 1, from the moment that the fault is planned.
    #[must_use]
    pub fn nth(mut self, nth: usize) -> Self {
        self.first = nth.max(1);
        self
    }

    /// This many in a row, not just one.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// All of them from there on.
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

/// Before or after the request has had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The server has not seen it.
    Before,
    /// The server has answered; the client does not know.
    After,
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The victim is killed by SIGKILL, and its request (or the answer) with it.
    Kill(Moment),
    /// The victim is stopped by SIGSTOP. With [`Moment::Before`] the request waits too, as if it were still on the
    /// wire, until [`Planned::release`].
    Stop(Moment),
    /// The server never sees it; the client gets this status with a `kind: Status` body as Kubernetes writes it.
    Answer {
        /// 409, 429, 500, 503 …
        status: u16,
        /// A `Retry-After` header, in whole seconds.
        retry_after: Option<Duration>,
    },
    /// The server never sees it; the client gets this status and this body, as JSON, however little it makes sense.
    Say {
        /// 200, 500 …
        status: u16,
        /// What stands in the answer.
        body: String,
    },
    /// The server carries it out, and the connection breaks before the client gets any answer.
    LoseAnswer,
    /// The connection breaks in the middle of the answer's body.
    Cut,
    /// It is held back for so long, then goes its way.
    Stall(Duration),
    /// From this request on, everything under the prefix is refused for a while, and open streams under it break.
    Away(Outage),
}

/// A part of the world that cannot be reached for a while.
#[derive(Clone, Debug)]
pub struct Outage {
    /// What the path must begin with: `/k8s/clusters/c-abcde/`.
    pub prefix: String,
    /// For how long.
    pub lasts: Duration,
    /// Refused with this status; without one the connection just breaks.
    pub status: Option<u16>,
}

/// A fault that was planned; tells when it has struck.
#[derive(Clone, Debug)]
pub struct Planned {
    struck: watch::Receiver<usize>,
    pub(super) released: watch::Sender<bool>,
}

impl Planned {
    /// How often it has struck.
    pub fn struck(&self) -> usize {
        *self.struck.borrow()
    }

    /// Returns when it has struck for the first time (or when the proxy is gone).
    pub async fn strikes(&self) {
        let _ = self.struck.clone().wait_for(|struck| *struck > 0).await;
    }

    /// Lets a request that [`Fault::Stop`] holds back go on. The victim is continued by its owner, before or after.
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

    /// Counts the request if it fits, and says what shall happen to it.
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

/// An outage that has begun.
pub(super) struct Begun {
    pub(super) outage: Outage,
    pub(super) until: Instant,
}

/// Whether the pattern, in which `*` stands for anything, fits the whole text.
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
    fn a_rule_strikes_from_the_nth_fitting_request_on_and_as_often_as_told() {
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
