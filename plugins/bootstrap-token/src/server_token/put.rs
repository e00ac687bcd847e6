//! One change of the token, and what it means for its round.

use client::secret::Secret;
use supervisor::{PutResult, Supervisor, TokenValue};

/// What one PUT means for the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutOutcome {
    Accepted,
    /// The server answered 500: its files may be changed.
    Failed,
    Unanswered,
    /// Nothing has happened there.
    Unsent,
    LockLost,
}

/// Sends it once. `may_send`: whether the lock is still held, asked directly before the write. Where it was not accepted, also returns
/// why.
pub(crate) async fn put(
    supervisor: &Supervisor,
    password: &Secret,
    value: &TokenValue,
    may_send: impl Fn() -> bool + Send + Sync,
) -> (PutOutcome, Option<String>) {
    if !may_send() {
        return (PutOutcome::LockLost, None);
    }
    let (outcome, error) = match supervisor.put_token(password, value, may_send).await {
        PutResult::Accepted => return (PutOutcome::Accepted, None),
        PutResult::NotSent(supervisor::Error::NotAllowed { .. }) => return (PutOutcome::LockLost, None),
        PutResult::Failed(error) => (PutOutcome::Failed, error),
        PutResult::Unanswered(error) => (PutOutcome::Unanswered, error),
        PutResult::NotSent(error) | PutResult::RefusedUnchanged(error) => (PutOutcome::Unsent, error),
    };
    (outcome, Some(error.to_string()))
}
