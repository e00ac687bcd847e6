//! Real calls with a token: the only proof that it works, and that it does not any more.

use std::time::Duration;

use bootstrap::{Answer, Token, ask};
use client::connection::Connection;
use client::error::Error;
use tokio::time::{Instant, sleep};

use crate::servers::{Heard, Servers, together};

/// For how long an API server may let in a token that is gone: it remembers a success for ten seconds
/// (`TokenSuccessCacheTTL` of kubernetes/kubernetes `pkg/kubeapiserver/options/authentication.go`, 1.36), and has to hear of
/// the deletion first.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(12);

/// Between two looks: a refusal is not cached, so it is seen at once.
const PAUSE: Duration = Duration::from_millis(250);

/// Asks once, over a connection of its own.
pub(crate) async fn look(connection: &Connection, token: &Token) -> Result<Answer, Error> {
    let server = connection.with_token(&token.text())?.connect()?;
    Ok(ask::ask(&server.client, &token.id).await)
}

/// How the wait for a refusal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every server that was asked refuses it, and no other can remember it any more.
    Refused,
    /// Every server that was asked refuses it; another one may remember it yet.
    Remembered,
    /// This one did not refuse it.
    Not(Heard),
}

/// Asks until every server refuses a token that has just been deleted, or `patience` is at its end. Where there are servers
/// that cannot be asked, it also waits for as long as they may remember the token.
pub(crate) async fn until_refused(
    servers: &Servers,
    token: &Token,
    others: bool,
    patience: Duration,
) -> Result<End, Error> {
    let began = Instant::now();
    loop {
        let heard = servers.look(token).await?;
        let end = match heard.into_iter().find(|heard| heard.answer != Answer::Refused) {
            Some(heard) => End::Not(heard),
            None if others && began.elapsed() < REMEMBERED => End::Remembered,
            None => End::Refused,
        };
        if end == End::Refused || began.elapsed() > patience {
            return Ok(end);
        }
        sleep(PAUSE).await;
    }
}

/// Asks until the token is accepted: the API server learns of a new one by a watch, which takes some milliseconds.
pub(crate) async fn until_accepted(servers: &Servers, token: &Token, patience: Duration) -> Result<Answer, Error> {
    let began = Instant::now();
    loop {
        let answer = together(&servers.look(token).await?);
        if answer.is_accepted() || began.elapsed() > patience {
            return Ok(answer);
        }
        sleep(PAUSE / 5).await;
    }
}
