//! A body with a deadline: `--request-timeout` covers the whole response, as in kubectl.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use kube::client::Body;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{self, Error};

pub(super) struct Deadline {
    body: Body,
    sleep: Pin<Box<Sleep>>,
    timeout: Duration,
}

impl Deadline {
    pub(super) fn wrap(body: Body, at: Instant, timeout: Duration) -> Self {
        Self {
            body,
            sleep: Box::pin(sleep_until(at)),
            timeout,
        }
    }
}

impl HttpBody for Deadline {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let timeout = self.timeout;
        self.sleep
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(error::request_timed_out(timeout))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
