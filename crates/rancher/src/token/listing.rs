//! All registration tokens of a server, in pages, joined with their Secrets without holding either list.
//!
//! The API server lists both kinds in the order of their keys (`namespace/name`), and a token's Secret is called after
//! it, so the two lists are merged like two sorted files: a page of tokens at a time, and as many Secrets as it needs.
//! Neither list can be asked for its tokens only: Secrets carry no label, and a field selector knows no prefix.
//! `type=Opaque` leaves out what is large (Helm releases) or many (service account tokens), and what remains is dropped
//! as it is parsed. Asking each namespace for its Secrets instead would be one request per cluster, asking for each
//! Secret by name one per token.
//!
//! Order and simultaneity are a help, not a premise: a token without a Secret is looked up once more by name, and so is
//! the token of a Secret that seems to have none.

use std::collections::BTreeMap;

use super::{RawSecret, RawToken, RegistrationToken, SECRET_PREFIX, TOKEN, TokenSecret, Unknown, secret_of};
use client::request::{self, SECRET, Wanted};

use crate::error::Result;

/// The type of the Secrets of tokens (seen on Rancher 2.15.0).
pub(super) const OPAQUE: &str = "type=Opaque";

/// Some tokens of all clusters.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// At most 500, by namespace and name.
    pub tokens: Vec<RegistrationToken>,
    /// Secrets of tokens that are no more, up to where `tokens` ends.
    pub orphans: Vec<TokenSecret>,
}

/// A walk through all registration tokens of a server.
///
/// ```no_run
/// # async fn example(client: kube::Client) -> rancher::Result<()> {
/// let mut listing = rancher::token::Listing::new(client, None);
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
    client: ClientShownAsNothing,
    labels: Option<String>,
    tokens: Walk,
    secrets: Walk,
    /// Secrets that were read and whose tokens were not, by the key of the token.
    ahead: BTreeMap<String, TokenSecret>,
    /// The caller may not list Secrets.
    no_right: bool,
}

struct ClientShownAsNothing(kube::Client);

impl std::fmt::Debug for ClientShownAsNothing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// How far a list has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Walk {
    /// None: from the beginning.
    From(Option<String>),
    Done,
    /// Not to be read at all.
    Skipped,
}

/// The key by which the API server sorts, without its constant parts. A namespace is not compared on its own: `c-a-b`
/// comes before `c-a`, because `-` comes before `/`.
fn key(namespace: &str, token: &str) -> String {
    format!("{namespace}/{token}")
}

impl Listing {
    /// From the first on. With a label selector only tokens that match, and then no orphans: a Secret has no labels.
    pub fn new(client: kube::Client, labels: Option<String>) -> Self {
        Self {
            client: ClientShownAsNothing(client),
            labels,
            tokens: Walk::From(None),
            secrets: Walk::From(None),
            ahead: BTreeMap::new(),
            no_right: false,
        }
    }

    /// Without ever asking for a Secret: values of era S stay [`Unknown::NoSecret`].
    pub(crate) fn tokens_only(client: kube::Client) -> Self {
        Self {
            secrets: Walk::Skipped,
            ..Self::new(client, None)
        }
    }

    /// The caller may not list Secrets of all namespaces (known once a token of era S was met): values are
    /// [`Unknown::NoRight`], and orphans are not known.
    pub fn secrets_unknown(&self) -> bool {
        self.no_right
    }

    /// The next tokens; None after the last.
    pub async fn next(&mut self) -> Result<Option<Batch>> {
        let Walk::From(from) = self.tokens.clone() else {
            return Ok(None);
        };
        let wanted = Wanted {
            labels: self.labels.as_deref(),
            ..Wanted::default()
        };
        let page = request::list_page::<RawToken>(&self.client.0, TOKEN, &wanted, from.as_deref()).await?;
        let mut tokens: Vec<_> = page.items.into_iter().map(RawToken::read).collect();
        self.tokens = page.next.map_or(Walk::Done, |next| Walk::From(Some(next)));
        let last = match (&self.tokens, tokens.last()) {
            (Walk::From(_), Some(token)) => Some(key(&token.object.namespace, &token.object.name)),
            _ => None,
        };
        // A server of era P has no such Secrets, and is not asked for thousands of others.
        if self.secrets == Walk::Skipped {
            return Ok(Some(Batch {
                tokens,
                orphans: Vec::new(),
            }));
        }
        if self.secrets != Walk::From(None) || tokens.iter().any(|token| token.secret_name.is_some()) {
            self.read_secrets_up_to(last.as_deref()).await?;
        }
        for token in &mut tokens {
            self.join(token).await?;
        }
        let orphans = self.orphans_up_to(last.as_deref()).await?;
        Ok(Some(Batch { tokens, orphans }))
    }

    /// Reads Secrets until the list has passed `last` (None: to its end).
    async fn read_secrets_up_to(&mut self, last: Option<&str>) -> Result<()> {
        while let Walk::From(from) = self.secrets.clone()
            && !self.no_right
        {
            let wanted = Wanted {
                fields: Some(OPAQUE),
                ..Wanted::default()
            };
            let page = request::list_page::<RawSecret>(&self.client.0, SECRET, &wanted, from.as_deref()).await;
            let page = match page {
                Err(error) if error.is_forbidden() => {
                    self.no_right = true;
                    return Ok(());
                }
                other => other?,
            };
            self.secrets = page.next.map_or(Walk::Done, |next| Walk::From(Some(next)));
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
            (Some(secret), None) => token.secret = Some(secret),
            (_, Some(_)) if self.no_right => token.join(Err(Unknown::NoRight)),
            (_, Some(_)) => {
                let secret = secret_of(&self.client.0, token).await?;
                token.join(secret);
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Takes out the Secrets that should have met their token by now, and keeps those that really have none.
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
        if self.labels.is_some() {
            return Ok(orphans);
        }
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

/// Whether a list of Secrets that has `reached` this key holds, or would hold, the Secret of the token with key `last`.
fn passed(reached: &str, last: &str) -> bool {
    last.split_once('/')
        .is_some_and(|(namespace, token)| *reached >= *format!("{namespace}/{SECRET_PREFIX}{token}"))
}
