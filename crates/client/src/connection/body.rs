//! The body of a response, limited in bytes and in time, so that no server can fill the memory or hold a command.
//!
//! The bytes are counted after decompression: six megabytes of gzip can become six gigabytes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{self, Error};

/// The longest object, and the longest event of a watch. etcd accepts 1.5 MiB, and JSON is larger than what it stores.
const OBJECT: usize = 4 << 20;
/// The longest page of a list. A longer one is read again in smaller pages.
const PAGE: usize = 6 << 20;
/// The longest text of a Service behind the API server, such as metrics.
const TEXT: usize = 8 << 20;
/// The longest list without pages (Rancher's `limit=-1`): more than 5,000 tokens of one user.
const LIST: usize = 12 << 20;
/// The longest response of an error that is read. A `Status` is far smaller.
const FAILURE: usize = 1 << 20;

/// By how much the buffer of a long response grows at most.
const GROWTH: usize = 256 << 10;

/// Whether the response is a stream: a watch or followed logs.
pub(super) fn is_streamed(request: &Request<Body>) -> bool {
    has_parameter(request, |pair| {
        matches!(pair, "watch=true" | "watch=1" | "follow=true" | "follow=1")
    })
}

/// The longest successful response to a request.
pub(super) fn limit(request: &Request<Body>) -> usize {
    if has_parameter(request, |pair| pair == "limit=-1") {
        LIST
    } else if has_parameter(request, |pair| pair.starts_with("limit=")) {
        PAGE
    } else if request.uri().path().contains("/proxy/") {
        TEXT
    } else {
        OBJECT
    }
}

fn has_parameter(request: &Request<Body>, is: fn(&str) -> bool) -> bool {
    request.uri().query().unwrap_or_default().split('&').any(is)
}

/// Reads the whole body, so that an incomplete response is a failed attempt. A failed response that is too long has an
/// empty body: its status is what matters.
pub(super) async fn collected(response: Response<Body>, limit: usize) -> Result<Response<Bytes>, Error> {
    let (parts, mut body) = response.into_parts();
    let limit = if parts.status.is_success() { limit } else { FAILURE };
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            if parts.status.is_success() {
                return Err(error::too_long(limit));
            }
            bytes.clear();
            break;
        }
        // A buffer that doubles would take up to three times the limit.
        if bytes.capacity() - bytes.len() < data.len() {
            bytes.reserve_exact(data.len().max(bytes.len().min(GROWTH)));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Response::from_parts(parts, bytes.into()))
}

/// A body that is handed on. `--request-timeout` covers all of it, as in kubectl.
pub(super) struct Guarded {
    body: Body,
    deadline: Option<(Pin<Box<Sleep>>, Duration)>,
    /// The length so far of the line that is being received: each event of a watch is one line.
    line: usize,
    longest_line: usize,
}

impl Guarded {
    /// `deadline`: when `--request-timeout` ends, and how long it is.
    pub(super) fn new(body: Body, streamed: bool, deadline: Option<(Instant, Duration)>) -> Self {
        Self {
            body,
            deadline: deadline.map(|(at, timeout)| (Box::pin(sleep_until(at)), timeout)),
            line: 0,
            // Anything else was collected within its own limit.
            longest_line: if streamed { OBJECT } else { usize::MAX },
        }
    }

    fn checked(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Error> {
        if let Some(data) = frame.data_ref() {
            self.line = match data.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => data.len() - end - 1,
                None => self.line + data.len(),
            };
        }
        if self.line > self.longest_line {
            return Err(error::too_long(self.longest_line));
        }
        Ok(frame)
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| self.checked(frame?)));
        }
        let Some((sleep, timeout)) = &mut self.deadline else {
            return Poll::Pending;
        };
        let timeout = *timeout;
        let ended = sleep.as_mut().poll(context);
        ended.map(|()| Some(Err(error::request_timed_out(timeout))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
