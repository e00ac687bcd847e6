//! Passes a response body to the client: whole, until an outage interrupts it, or truncated.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{BoxError, ProxyResponse, Shared};

/// A chunk of a body, and the time of its arrival.
type Piece = (Instant, Result<Frame<Bytes>, BoxError>);
type Pieces = mpsc::Receiver<Piece>;

/// The number of chunks that may be delayed at once.
const ON_THE_WAY: usize = 1024;

/// How a response body is passed on.
enum Carry {
    /// Whole, until an outage of its path begins.
    Whole { path: String, shared: Arc<Shared> },
    /// This many bytes, then the connection breaks.
    Until(usize),
    /// The first chunk of a stream without a known length, then the connection breaks.
    FirstPiece,
}

/// Passes the whole response on, each chunk with this delay.
pub(super) fn live(answer: Response<Incoming>, path: String, delay: Duration, shared: &Arc<Shared>) -> ProxyResponse {
    let how = Carry::Whole {
        path,
        shared: Arc::clone(shared),
    };
    carry(answer, how, delay)
}

/// Passes half of the response on, and breaks the connection.
pub(super) fn cut(answer: Response<Incoming>) -> Result<ProxyResponse> {
    match answer.body().size_hint().exact() {
        Some(0) => bail!("there is no middle to cut in, so the whole answer is lost"),
        Some(size) => Ok(carry(answer, Carry::Until(usize::try_from(size / 2)?), Duration::ZERO)),
        None => Ok(carry(answer, Carry::FirstPiece, Duration::ZERO)),
    }
}

/// Passes the body on chunk by chunk, in a task that ends when either side does.
fn carry(answer: Response<Incoming>, how: Carry, delay: Duration) -> ProxyResponse {
    answer.map(|body| {
        if body.is_end_stream() {
            return Full::default().map_err(|never| match never {}).boxed_unsync();
        }
        // Without a delay nothing is buffered, so a slow reader slows the server down.
        let (sender, receiver) = mpsc::channel(if delay.is_zero() { 1 } else { ON_THE_WAY });
        tokio::spawn(pump(body, how, sender));
        let pieces = futures::stream::unfold(receiver, move |mut receiver: Pieces| async move {
            let (came, piece) = receiver.recv().await?;
            tokio::time::sleep_until(came + delay).await;
            Some((piece, receiver))
        });
        StreamBody::new(pieces).boxed_unsync()
    })
}

async fn pump(mut body: Incoming, mut how: Carry, sender: mpsc::Sender<Piece>) {
    loop {
        let piece = tokio::select! {
            piece = body.frame() => piece,
            () = how.interrupted() => return broken(&sender).await,
            () = sender.closed() => return,
        };
        let Some(piece) = piece else { return };
        let (piece, last) = match piece {
            Ok(frame) => how.limit(frame),
            Err(error) => {
                let _ = sender.send((Instant::now(), Err(error.into()))).await;
                return;
            }
        };
        if sender.send((Instant::now(), Ok(piece))).await.is_err() {
            return;
        }
        if last {
            // The server flushes when no more data is available. Without this pause, the error would arrive before the
            // chunk was sent.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return broken(&sender).await;
        }
    }
}

async fn broken(sender: &mpsc::Sender<Piece>) {
    let cut = (Instant::now(), Err("the connection is cut".into()));
    let _ = sender.send(cut).await;
}

impl Carry {
    /// Returns when an outage of this path begins.
    async fn interrupted(&self) {
        if let Self::Whole { path, shared } = self {
            let mut begun = shared.outages_begun.subscribe();
            while shared.outage(path).is_none() {
                // The sender is in `shared`, so it exists.
                let _ = begun.changed().await;
            }
            return;
        }
        std::future::pending::<()>().await;
    }

    /// The part of this chunk that is passed on, and whether the connection breaks after it.
    fn limit(&mut self, piece: Frame<Bytes>) -> (Frame<Bytes>, bool) {
        match self {
            Self::Whole { .. } => (piece, false),
            Self::FirstPiece => (piece, true),
            Self::Until(left) => match piece.into_data() {
                Ok(mut data) => {
                    data.truncate(*left);
                    *left -= data.len();
                    (Frame::data(data), *left == 0)
                }
                Err(trailers) => (trailers, true),
            },
        }
    }
}
