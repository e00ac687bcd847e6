//! One pod with its Secret, from the creation to the deletion.
//!
//! It is a task of its own, so that it ends in the deletion whatever becomes of the future that waits for its result: a timeout, an
//! interrupt, or a lost lock drop that future at any moment. The task then stops waiting, and deletes.

use std::time::Duration;

use client::error::{Error as UserError, Kind};
use client::request::{self, Metadata, Resource, SECRET, Write};
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use super::status::{PodStatus, RawPod};
use super::{NAMESPACE, POD, START, api};
use crate::error::NodeProblem;
use crate::shell::Output;

/// How often the state of a pod is read.
const INTERVAL: Duration = Duration::from_millis(300);
/// How long a pod may be in a state that does not end by itself.
const STUCK: Duration = Duration::from_secs(10);
/// How long one write may take.
const WRITE: Duration = Duration::from_secs(10);
/// How long a deletion is tried while the API does not answer, as while its server restarts.
const DELETION: Duration = Duration::from_mins(2);
/// The most bytes of a log that are read.
const LIMIT: usize = 1 << 20;

/// A pod and its Secret, which have the same name.
pub(super) struct PodTask {
    pub(super) client: kube::Client,
    pub(super) name: String,
    pub(super) secret: Value,
    pub(super) pod: Value,
    pub(super) write: Write,
    pub(super) timeout: Duration,
}

impl PodTask {
    pub(super) async fn run(self, mut sender: oneshot::Sender<Result<Output, NodeProblem>>) {
        let output = self.output(&mut sender).await;
        // Before the result, so that nothing is left when the caller continues.
        let deleted = self.delete().await;
        let is_pending = matches!(&deleted, Err(error) if error.kind.is_transient());
        let _ = sender.send(match deleted {
            Err(source) if !is_pending => Err(NodeProblem::Api {
                what: format!("delete pod {NAMESPACE}/{} and its Secret", self.name),
                source: Box::new(source),
            }),
            // Whatever becomes of the deletion, the script has run.
            _ => output,
        });
        let end = Instant::now() + DELETION;
        let mut is_pending = is_pending;
        while is_pending && Instant::now() < end {
            sleep(INTERVAL).await;
            is_pending = matches!(self.delete().await, Err(error) if error.kind.is_transient());
        }
    }

    /// Creates both, and waits for the result, unless the receiver is dropped.
    async fn output(&self, sender: &mut oneshot::Sender<Result<Output, NodeProblem>>) -> Result<Output, NodeProblem> {
        self.create(SECRET, &self.secret).await?;
        if !sender.is_closed() {
            self.create(POD, &self.pod).await?;
        }
        tokio::select! {
            () = sender.closed() => Err(NodeProblem::Incomplete),
            output = self.result() => output,
        }
    }

    /// It is not cancelled in between, since it might arrive after the deletion then.
    async fn create(&self, resource: Resource, body: &Value) -> Result<(), NodeProblem> {
        let created =
            request::create::<IgnoredAny>(&self.client, resource, Some(NAMESPACE), &self.name, body, &self.write);
        match timeout(WRITE, created).await {
            Ok(created) => created.map(drop).map_err(api),
            Err(_) => Err(NodeProblem::Api {
                what: format!("create {}", resource.named(Some(NAMESPACE), Some(&self.name))),
                source: Box::new(no_response()),
            }),
        }
    }

    /// Deletes both, the Secret first, since it may contain a token. What a request without an answer has created is found too.
    async fn delete(&self) -> Result<(), UserError> {
        let deleted = [self.remove(SECRET).await, self.remove(POD).await];
        deleted.into_iter().collect()
    }

    async fn remove(&self, resource: Resource) -> Result<(), UserError> {
        let removed = async {
            let found = request::get_metadata(&self.client, resource, Some(NAMESPACE), &self.name).await?;
            let Some(found) = found else { return Ok(()) };
            let observed = Metadata::from(found).observed();
            request::delete_any_version(&self.client, resource, &observed, &self.write).await
        };
        match timeout(WRITE, removed).await {
            Ok(removed) => removed.map_err(UserError::from),
            Err(_) => Err(no_response()),
        }
    }

    /// Waits for the end of the pod, and reads its log.
    async fn result(&self) -> Result<Output, NodeProblem> {
        let limit = self.timeout + START;
        let end = Instant::now() + limit;
        let code = self.ended(end, limit).await?;
        let name = &self.name;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/log?container=script&limitBytes={LIMIT}");
        let log = loop {
            match request::get_text(&self.client, "the log of", &path).await {
                Ok(log) => break log,
                Err(error) if Instant::now() >= end => return Err(api(error)),
                Err(_) => sleep(INTERVAL).await,
            }
        };
        if log.len() >= LIMIT {
            return Err(NodeProblem::TooMuchOutput(LIMIT));
        }
        // The log has both streams. A record begins with @.
        let errors = log.lines().filter(|line| !line.starts_with('@')).collect::<Vec<_>>();
        Ok(Output {
            stderr: Zeroizing::new(errors.join("\n")),
            stdout: Zeroizing::new(log.into_bytes()),
            code: Some(code),
        })
    }

    /// Its exit code.
    async fn ended(&self, end: Instant, limit: Duration) -> Result<i32, NodeProblem> {
        let mut status = PodStatus::default();
        let mut stuck: Option<Instant> = None;
        loop {
            // The API may be away while a server restarts.
            match request::get::<RawPod>(&self.client, POD, Some(NAMESPACE), &self.name).await {
                Ok(Some(pod)) => status = pod.status,
                Ok(None) => return Err(NodeProblem::Pod("the pod was deleted before its end".to_owned())),
                Err(_) => {}
            }
            if status.has_ended() {
                let ended = || NodeProblem::Pod(format!("the pod ended before its script did: {}", status.reason()));
                return status.exit_code().ok_or_else(ended);
            }
            if status.is_stuck() {
                stuck.get_or_insert_with(Instant::now);
            } else {
                stuck = None;
            }
            let is_stuck = stuck.is_some_and(|since| since.elapsed() >= STUCK);
            if is_stuck || Instant::now() >= end {
                return Err(match status.waiting() {
                    // It may still have started while it was deleted.
                    Some(reason) => NodeProblem::Pod(format!("the pod does not start: {reason}")),
                    None => NodeProblem::TimedOut(limit),
                });
            }
            sleep(INTERVAL).await;
        }
    }
}

fn no_response() -> UserError {
    UserError::new(Kind::Unavailable, format!("no response within {} s", WRITE.as_secs()))
}
