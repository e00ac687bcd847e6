//! The change of the server token: `PUT /v1-k3s/token`.
//!
//! It changes the datastore, and the files of the server that takes it. It changes no login: each server accepts the password that it
//! loaded at its start until it restarts. It cannot be conditional, and one that arrives late does harm. So it is sent in one write on
//! a connection of its own, and never again.
//!
//! | response | what has happened (seen on K3s 1.36.3) |
//! |---|---|
//! | 200, empty | the datastore and the files of this server have the new token |
//! | 400, 401, 403, 405 | nothing |
//! | 500 `token error ID 12345` | the files may be changed, and the datastore not. The reason is in the log of the server |
//! | reset, none | anything |

use client::secret::Secret;
use http::Method;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::supervisor::Supervisor;
use crate::token::{TokenUser, TokenValue};
use crate::wire::{Call, Login};

/// The outcome of a change of the token.
#[derive(Debug)]
#[must_use]
pub enum PutResult {
    /// It was carried out.
    Accepted,
    /// The server refused it before it changed anything.
    RefusedUnchanged(Error),
    /// The server failed. Its files may be changed.
    Failed(Error),
    /// It was sent, at least in part, and whether it was or will be carried out is not known.
    Unanswered(Error),
    /// Nothing was sent.
    NotSent(Error),
}

impl Supervisor {
    /// Changes the token. `login` is the password that this server accepts now, which can be an older one than that of its files.
    /// `may_send` is asked when the connection is open, directly before the write: whether the lock is still held.
    pub async fn put_token(
        &self,
        login: &Secret,
        value: &TokenValue,
        may_send: impl FnOnce() -> bool + Send,
    ) -> PutResult {
        let login = Login::User(TokenUser::Server, login);
        let call = Call {
            method: Method::PUT,
            body: Some(body(value.password())),
            secrets: vec![value.password()],
            timeout: self.options.write_timeout,
            may_send: Some(Box::new(may_send)),
            ..Call::get(self.kind().path("token"), login, &self.options)
        };
        match self.send(call).await {
            Ok(response) => match response.code {
                200 => PutResult::Accepted,
                400 | 401 | 403 | 405 => PutResult::RefusedUnchanged(response.error()),
                500 => PutResult::Failed(response.error()),
                _ => PutResult::Unanswered(response.error()),
            },
            Err(error @ (Error::NoResponse { sent: false, .. } | Error::NotAllowed { .. })) => {
                PutResult::NotSent(error)
            }
            Err(error) => PutResult::Unanswered(error),
        }
    }
}

fn body(password: &Secret) -> Zeroizing<Vec<u8>> {
    let text = password.expose();
    // A buffer that grows would leave parts of the token behind. Each byte is escaped to at most six.
    let mut body = Zeroizing::new(Vec::with_capacity(text.len() * 6 + 32));
    body.extend_from_slice(b"{\"newToken\":");
    serde_json::to_writer(&mut *body, text).expect("a text is JSON, and a buffer takes it");
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_json_whatever_the_token_contains() {
        for token in ["abc", "a\"b\\c", "pässwörd-日本", "\u{1}"] {
            let body = body(&Secret::new(token));
            let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(parsed, serde_json::json!({ "newToken": token }));
        }
    }
}
