//! All registration tokens of a server, in pages, joined with their Secrets without holding either list.
//!
//! The API server lists both kinds in the order of their keys (`namespace/name`), and a Secret is named after its token. So the
//! two lists are merged like two sorted files: a page of tokens at a time, and as many Secrets as it needs. A list of Secrets
//! cannot be limited to those of tokens: they have no label, and there is no selector for a prefix. `type=Opaque` excludes large
//! ones (Helm releases) and frequent ones (service account tokens); the rest is dropped while it is parsed. The alternatives
//! are one request per cluster, or one per token.
//!
//! The merge does not rely on the order, nor on both lists being of the same moment: a token without a Secret is looked up by
//! name, and so is the token of an orphaned Secret.

use std::collections::BTreeMap;

use super::{RawSecret, RawToken, RegistrationToken, SECRET_PREFIX, TOKEN, TokenSecret, ValueError, secret_of};
use client::request::{self, Continue, ListOptions, SECRET};

use crate::error::Result;

/// The type of the Secrets of tokens (seen on Rancher 2.15.0).
pub(super) const OPAQUE: &str = "type=Opaque";

/// Some tokens of all clusters.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// At most 500, by namespace and name.
    pub tokens: Vec<RegistrationToken>,
    /// Orphaned token Secrets, up to the last of `tokens`.
    pub orphans: Vec<TokenSecret>,
}

/// Lists all registration tokens of a server.
///
/// ```no_run
/// # async fn example(client: kube::Client) -> rancher::Result<()> {
/// let mut listing = rancher::token::Listing::new(client);
/// while let Some(batch) = listing.next().await? {
///     for token in batch.tokens {
///         println!("{} {:?}", token.object.name, token.current().map(|value| value.fingerprint()));
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listing {
    client: OpaqueClient,
    tokens: Cursor,
    secrets: Cursor,
    /// Secrets whose tokens were not read yet, by the key of the token.
    ahead: BTreeMap<String, TokenSecret>,
    /// The caller has no permission to list Secrets.
    no_permission: bool,
}

struct OpaqueClient(kube::Client);

impl std::fmt::Debug for OpaqueClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// How far a list was read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cursor {
    /// None: from the beginning.
    From(Option<Continue>),
    Done,
    /// Not read at all.
    Skipped,
}

/// The key by which the API server sorts, without its constant parts. The namespace is not compared alone: `c-a-b` comes before
/// `c-a`, because `-` comes before `/`.
fn key(namespace: &str, token: &str) -> String {
    format!("{namespace}/{token}")
}

impl Listing {
    /// From the beginning.
    pub fn new(client: kube::Client) -> Self {
        Self {
            client: OpaqueClient(client),
            tokens: Cursor::From(None),
            secrets: Cursor::From(None),
            ahead: BTreeMap::new(),
            no_permission: false,
        }
    }

    /// Without reading Secrets: with storage `secret` values are [`ValueError::NoSecret`].
    pub(crate) fn tokens_only(client: kube::Client) -> Self {
        Self {
            secrets: Cursor::Skipped,
            ..Self::new(client)
        }
    }

    /// The caller has no permission to list the Secrets of all namespaces (known once a token with a Secret was read): values are
    /// [`ValueError::NoPermission`], and orphans are not known.
    pub fn secrets_unknown(&self) -> bool {
        self.no_permission
    }

    /// The next tokens. None after the last.
    pub async fn next(&mut self) -> Result<Option<Batch>> {
        let Cursor::From(from) = self.tokens.clone() else {
            return Ok(None);
        };
        let options = ListOptions::default();
        let page = request::list_page::<RawToken>(&self.client.0, TOKEN, &options, from.as_ref()).await?;
        let mut tokens: Vec<_> = page.items.into_iter().map(RawToken::read).collect();
        self.tokens = page.next.map_or(Cursor::Done, |next| Cursor::From(Some(next)));
        let last = match (&self.tokens, tokens.last()) {
            (Cursor::From(_), Some(token)) => Some(key(&token.object.namespace, &token.object.name)),
            _ => None,
        };
        // With storage `status` there are no such Secrets, and thousands of others are not listed in vain.
        if self.secrets == Cursor::Skipped {
            return Ok(Some(Batch {
                tokens,
                orphans: Vec::new(),
            }));
        }
        if self.secrets != Cursor::From(None) || tokens.iter().any(|token| token.secret_name.is_some()) {
            self.read_secrets_up_to(last.as_deref()).await?;
        }
        for token in &mut tokens {
            self.join(token).await?;
        }
        let orphans = self.orphans_up_to(last.as_deref()).await?;
        Ok(Some(Batch { tokens, orphans }))
    }

    /// Reads Secrets until the list has passed `last` (None: to the end).
    async fn read_secrets_up_to(&mut self, last: Option<&str>) -> Result<()> {
        while let Cursor::From(from) = self.secrets.clone()
            && !self.no_permission
        {
            let options = ListOptions {
                fields: Some(OPAQUE),
                ..ListOptions::default()
            };
            let page = request::list_page::<RawSecret>(&self.client.0, SECRET, &options, from.as_ref()).await;
            let page = match page {
                Err(error) if error.is_forbidden() => {
                    self.no_permission = true;
                    return Ok(());
                }
                other => other?,
            };
            self.secrets = page.next.map_or(Cursor::Done, |next| Cursor::From(Some(next)));
            let reached = page
                .items
                .last()
                .map(|raw| format!("{}/{}", raw.metadata.namespace, raw.metadata.name));
            for secret in page.items.into_iter().filter_map(RawSecret::read) {
                self.ahead
                    .insert(key(&secret.object.namespace, secret.token_name()), secret);
            }
            if let (Some(last), Some(reached)) = (last, reached)
                && passed(&reached, last)
            {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn join(&mut self, token: &mut RegistrationToken) -> Result<()> {
        let found = self.ahead.remove(&key(&token.object.namespace, &token.object.name));
        match (found, &token.secret_name) {
            (Some(secret), Some(name)) if *name == secret.object.name => token.join(Ok(secret)),
            (Some(secret), None) => token.leave(secret),
            (_, Some(_)) if self.no_permission => token.join(Err(ValueError::NoPermission)),
            (_, Some(_)) => {
                let secret = secret_of(&self.client.0, token).await?;
                token.join(secret);
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Removes the Secrets up to `last`, and returns those whose token does not exist.
    async fn orphans_up_to(&mut self, last: Option<&str>) -> Result<Vec<TokenSecret>> {
        let left = match last {
            Some(last) => {
                let mut later = self.ahead.split_off(last);
                std::mem::swap(&mut later, &mut self.ahead);
                later
            }
            None => std::mem::take(&mut self.ahead),
        };
        let mut orphans = Vec::new();
        for secret in left.into_values() {
            let namespace = Some(secret.object.namespace.as_str());
            let token: Option<RawToken> = request::get(&self.client.0, TOKEN, namespace, secret.token_name()).await?;
            if token.is_none() {
                orphans.push(secret);
            }
        }
        Ok(orphans)
    }
}

/// Whether a list of Secrets that was read up to key `reached` includes the Secret of the token with key `last`.
fn passed(reached: &str, last: &str) -> bool {
    last.split_once('/')
        .is_some_and(|(namespace, token)| *reached >= *format!("{namespace}/{SECRET_PREFIX}{token}"))
}
