//! The body of a response, limited in bytes, in JSON tokens and in time, so that no server can fill the memory or hold a
//! command.
//!
//! The bytes are counted after decompression: six megabytes of gzip can become six gigabytes. The tokens are counted
//! because JSON grows when it is parsed: 6 MiB of `{},{},…` take up to 240 MiB.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{self, Error};

/// How much of a response is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    bytes: usize,
    /// The most JSON tokens: each `{`, `[`, `,` and `:` outside of strings. A field or an element has two at most.
    tokens: usize,
}

/// The most tokens that are parsed into objects. Objects with maps take up to 130 bytes for each, so 13 MiB together. An
/// Application of Argo CD with 6,000 resources has fewer.
const TOKENS: usize = 100_000;

/// The largest object, and the longest event of a watch. etcd accepts 1.5 MiB, and JSON is larger than what it stores.
const OBJECT: Limit = Limit {
    bytes: 4 << 20,
    tokens: TOKENS,
};
/// The largest page of a list. A larger one is read again in smaller pages.
const PAGE: Limit = Limit {
    bytes: 6 << 20,
    tokens: TOKENS,
};
/// The longest text of a Service behind the API server, such as metrics. It is not parsed as JSON.
const TEXT: Limit = Limit {
    bytes: 8 << 20,
    tokens: usize::MAX,
};
/// The largest list without pages (Rancher's `limit=-1`): more than 5,000 tokens of one user, whose fields take less
/// memory than maps.
const LIST: Limit = Limit {
    bytes: 12 << 20,
    tokens: 500_000,
};
/// The longest response of an error that is read. A `Status` is far smaller. It is parsed as any JSON, which takes up to
/// a hundred times its length.
const FAILURE: usize = 64 << 10;

/// How many bytes of a response are read beside a long one. Of the long ones only one is read at a time, so that the limits do
/// not add up where a command sends several requests at once.
const BESIDE: usize = 1 << 20;
static LONG: Semaphore = Semaphore::const_new(1);

/// By how much the buffer of a long response grows at most.
const GROWTH: usize = 256 << 10;

/// Whether the response is a stream: a watch or followed logs.
pub(super) fn is_streamed(request: &Request<Body>) -> bool {
    has_parameter(request, |pair| {
        matches!(pair, "watch=true" | "watch=1" | "follow=true" | "follow=1")
    })
}

/// The longest successful response to a request.
pub(super) fn limit(request: &Request<Body>) -> Limit {
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
pub(super) async fn collected(response: Response<Body>, limit: Limit) -> Result<Response<Bytes>, Error> {
    let (parts, mut body) = response.into_parts();
    let longest = if parts.status.is_success() {
        limit.bytes
    } else {
        FAILURE
    };
    let (mut bytes, mut tokens, mut alone) = (Vec::new(), Tokens::default(), None);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if alone.is_none() && bytes.len() + data.len() > BESIDE {
            alone = LONG.acquire().await.ok();
        }
        if tokens.after(&data) > limit.tokens {
            return Err(error::too_many_tokens(limit.tokens));
        }
        if bytes.len() + data.len() > longest {
            if parts.status.is_success() {
                return Err(error::too_long(longest));
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

/// Counts the JSON tokens of a text that may be JSON.
#[derive(Default)]
struct Tokens {
    count: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Tokens {
    /// How many there are after this part of the text too.
    fn after(&mut self, part: &[u8]) -> usize {
        for byte in part {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' | b',' | b':' if !self.in_string => self.count += 1,
                _ => {}
            }
        }
        self.count
    }
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
            longest_line: if streamed { OBJECT.bytes } else { usize::MAX },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_strings_are_not_counted() {
        for (text, count) in [
            ("", 0),
            ("7", 0),
            ("[]", 1),
            (r#"{"a":1,"b":[{},{}]}"#, 8),
            (r#"{"a,{[:":"\",{[","b":"\"}"#, 4),
            (r#""not closed {[,:"#, 0),
        ] {
            assert_eq!(Tokens::default().after(text.as_bytes()), count, "{text}");
            let mut tokens = Tokens::default();
            let parts: Vec<_> = text.bytes().map(|byte| tokens.after(&[byte])).collect();
            assert_eq!(parts.last().copied().unwrap_or_default(), count, "{text}, byte by byte");
        }
    }
}
