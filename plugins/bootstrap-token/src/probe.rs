//! Probes the API servers with a token: the only proof that they accept or reject it.

use std::time::Duration;

use bootstrap::{ProbeResult, Token, probe};
use client::connection::Connection;
use client::error::Error;
use tokio::time::{Instant, sleep};

use crate::servers::{ServerResult, Servers, combined};

/// For how long an API server may accept a deleted token: it caches that it accepted one for ten seconds
/// (`TokenSuccessCacheTTL` in kubernetes/kubernetes `pkg/kubeapiserver/options/authentication.go`, 1.36), and first has to learn of
/// the deletion.
pub(crate) const CACHE_LIFETIME: Duration = Duration::from_secs(12);

/// Between two probes. A rejection is not cached.
const PAUSE: Duration = Duration::from_millis(250);

pub(crate) async fn once(connection: &Connection, token: &Token) -> Result<ProbeResult, Error> {
    let server = connection.with_token(&token.text())?.connect()?;
    Ok(probe::probe(&server.client, &token.id).await)
}

/// The result of waiting for a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RevocationResult {
    /// All probed servers reject the token, and no other one can have it in its cache.
    Rejected,
    /// All probed servers reject the token. Another one may have it in its cache.
    MayBeCached,
    NotRejected(ServerResult),
}

/// Waits until all servers reject a token that was deleted, at most for `timeout`. If there are `others` that are not probed, it also
/// waits until they cannot have the token in their cache.
pub(crate) async fn until_rejected(
    servers: &Servers,
    token: &Token,
    others: bool,
    timeout: Duration,
) -> Result<RevocationResult, Error> {
    let began = Instant::now();
    loop {
        let results = servers.probe(token).await?;
        let end = match results.into_iter().find(|one| one.result != ProbeResult::Rejected) {
            Some(result) => RevocationResult::NotRejected(result),
            None if others && began.elapsed() < CACHE_LIFETIME => RevocationResult::MayBeCached,
            None => RevocationResult::Rejected,
        };
        if end == RevocationResult::Rejected || began.elapsed() > timeout {
            return Ok(end);
        }
        sleep(PAUSE).await;
    }
}

/// Waits until all servers accept a new token, at most for `timeout`.
pub(crate) async fn until_accepted(servers: &Servers, token: &Token, timeout: Duration) -> Result<ProbeResult, Error> {
    let began = Instant::now();
    loop {
        let result = combined(&servers.probe(token).await?);
        if result.is_accepted() || began.elapsed() > timeout {
            return Ok(result);
        }
        sleep(PAUSE / 5).await;
    }
}
