//! Real calls with a token: the only proof that it works, and that it does not any more.

use std::time::Duration;

use bootstrap::{Answer, Token, ask};
use kubectl_core::connection::Connection;
use kubectl_core::error::Error;
use tokio::time::{Instant, sleep};

/// Between two looks: a refusal is not cached, so it is seen at once.
const PAUSE: Duration = Duration::from_millis(250);
/// How many refusals in a row: behind a load balancer every API server has a cache of its own.
const LOOKS: u32 = 3;

/// Asks once, over a connection of its own.
pub async fn look(connection: &Connection, token: &Token) -> Result<Answer, Error> {
    let server = connection.with_token(&token.text())?.connect()?;
    Ok(ask::ask(&server.client, &token.id).await)
}

/// Asks until the token is refused by several connections in a row; gives the last answer when `patience` is at its end.
pub async fn until_refused(connection: &Connection, token: &Token, patience: Duration) -> Result<Answer, Error> {
    let began = Instant::now();
    let mut refused = 0;
    loop {
        let answer = look(connection, token).await?;
        refused = if answer == Answer::Refused { refused + 1 } else { 0 };
        if refused >= LOOKS || (refused == 0 && began.elapsed() > patience) {
            return Ok(answer);
        }
        if refused == 0 {
            sleep(PAUSE).await;
        }
    }
}

/// Asks until the token is accepted: the API server learns of a new one by a watch, which takes some milliseconds.
pub async fn until_accepted(connection: &Connection, token: &Token, patience: Duration) -> Result<Answer, Error> {
    let began = Instant::now();
    loop {
        let answer = look(connection, token).await?;
        if answer.is_accepted() || began.elapsed() > patience {
            return Ok(answer);
        }
        sleep(PAUSE / 5).await;
    }
}
