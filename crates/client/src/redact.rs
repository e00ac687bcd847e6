//! Redacts credentials in text from other sources: URLs for the request log, messages of a server.
//!
//! [`crate::secret::Secret`] protects values that are known to be secret. This is for text that may contain one: [`text`]
//! and [`url`] go by the shape of a credential, [`Sent`] by its value.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::sanitize;
use crate::secret::Secret;

/// The replacement of a credential.
const HIDDEN: &str = "<hidden>";

/// Shorter values are not hidden: they may be part of any word.
const SHORTEST: usize = 8;

/// The credentials in a request, to be hidden wherever the server repeats them.
pub struct Sent(Vec<String>);

impl Sent {
    /// Those in the headers of a request: `Authorization`, and what is marked as sensitive.
    pub fn with(headers: &HeaderMap) -> Self {
        let secret = headers
            .iter()
            .filter(|(name, value)| value.is_sensitive() || *name == AUTHORIZATION);
        let values = secret.filter_map(|(_, value)| value.to_str().ok()?.rsplit(' ').next());
        Self(
            values
                .filter(|value| value.len() >= SHORTEST)
                .map(str::to_owned)
                .collect(),
        )
    }

    /// The text of a server, without them and without anything else that looks like a credential, on one line. `None` if one of these
    /// values was sent and is too short to be found.
    pub fn message(mut self, values: &[&Secret], text: &str) -> Option<String> {
        if values.iter().any(|value| value.expose().len() < SHORTEST) {
            return None;
        }
        self.0.extend(values.iter().map(|value| value.expose().to_owned()));
        let hidden = self.hidden(text.as_bytes());
        Some(sanitize::line(&self::text(hidden.as_deref().unwrap_or(text))))
    }

    /// Hides them in a body.
    pub(crate) fn hide_in(&self, body: Bytes) -> Bytes {
        match self.hidden(&body) {
            Some(text) => text.into(),
            None => body,
        }
    }

    /// Hides them in the headers of a response.
    pub(crate) fn hide_in_headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            if self.hidden(value.as_bytes()).is_some() {
                *value = HeaderValue::from_static(HIDDEN);
            }
        }
    }

    /// The text without them; `None` if it has none of them.
    fn hidden(&self, bytes: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(bytes);
        let found = self.0.iter().any(|value| text.contains(value.as_str()));
        found.then(|| {
            self.0
                .iter()
                .fold(text.into_owned(), |text, value| text.replace(value.as_str(), HIDDEN))
        })
    }
}

/// A URL or its path for the log, without user info, without tokens in the path, and with harmless query values only.
pub fn url(text: &str) -> String {
    let (path, query) = text
        .split_once('?')
        .map_or((text, None), |(path, query)| (path, Some(query)));
    let path = without_user_info(path);
    let mut shown: Vec<String> = Vec::new();
    let mut after_import = false;
    for segment in path.split('/') {
        // Rancher: `/v3/import/<token>_<cluster id>.yaml` (seen on Rancher 2.15.0).
        shown.push(if after_import { HIDDEN.into() } else { words(segment) });
        after_import = segment == "import";
    }
    let path = shown.join("/");
    match query {
        None => path,
        Some(query) => format!(
            "{path}?{}",
            query.split('&').map(parameter).collect::<Vec<_>>().join("&")
        ),
    }
}

/// A text of a server or a library, without anything that looks like a credential.
pub fn text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        let body = word.trim_end_matches(char::is_whitespace);
        shown.push_str(&if body.contains("/import/") {
            url(body)
        } else {
            words(&without_user_info(body))
        });
        shown.push_str(&word[body.len()..]);
    }
    shown
}

/// Parameters that Kubernetes itself defines; the value of any other may be anything.
const PLAIN_PARAMETERS: &[&str] = &[
    "allowWatchBookmarks",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "force",
    "gracePeriodSeconds",
    "labelSelector",
    "limit",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeout",
    "timeoutSeconds",
    "watch",
];

fn parameter(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, value)) if PLAIN_PARAMETERS.contains(&name) => format!("{name}={}", words(value)),
        Some((name, _)) => format!("{name}={HIDDEN}"),
        None => words(pair),
    }
}

/// A URL without user name and password.
pub fn without_user_info(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
}

/// Hides each run of token characters that looks like a credential.
fn words(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut run = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '+' | '=') {
            run.push(c);
        } else {
            shown.push_str(visible(&run));
            run.clear();
            shown.push(c);
        }
    }
    shown.push_str(visible(&run));
    shown
}

fn visible(run: &str) -> &str {
    if looks_like_a_credential(run) { HIDDEN } else { run }
}

/// JSON Web Tokens, Rancher's API tokens (`token-abcde:…`, `kubeconfig-u-…:…`), bootstrap tokens (`[a-z0-9]{6}.[a-z0-9]{16}`)
/// and any unbroken run of 40 letters and digits or more (Rancher's registration tokens have 54).
fn looks_like_a_credential(run: &str) -> bool {
    let unbroken = |text: &str, least: usize| text.len() >= least && text.chars().all(|c| c.is_ascii_alphanumeric());
    let jwt = run.starts_with("eyJ") && run.contains('.');
    let rancher = run.rsplit_once(':').is_some_and(|(_, key)| unbroken(key, 30));
    let bootstrap = run.split_once('.').is_some_and(|(id, secret)| {
        let lower = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        id.len() == 6 && secret.len() == 16 && lower(id) && lower(secret) && secret.chars().any(|c| c.is_ascii_digit())
    });
    jwt || rancher || bootstrap || run.split(['-', '_', '.', ':', '+', '=']).any(|part| unbroken(part, 40))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87";

    #[test]
    fn the_import_url_of_rancher_shows_no_token() {
        let shown = url(&format!("https://rancher.example/v3/import/{TOKEN}_c-abcde.yaml"));
        assert_eq!(shown, "https://rancher.example/v3/import/<hidden>");
        assert_eq!(url("/v3/import/short_c-1.yaml"), "/v3/import/<hidden>");
    }

    #[test]
    fn a_query_shows_only_values_that_kubernetes_defines() {
        assert_eq!(
            url("/api/v1/secrets?limit=500&continue=abc&token=x"),
            "/api/v1/secrets?limit=500&continue=<hidden>&token=<hidden>"
        );
        assert_eq!(
            url(&format!("/x?labelSelector=a%3D{TOKEN}")),
            "/x?labelSelector=a%<hidden>"
        );
    }

    #[test]
    fn user_info_of_a_url_is_dropped() {
        assert_eq!(url("https://user:pass@host:8443/path"), "https://host:8443/path");
    }

    #[test]
    fn a_text_loses_the_user_info_of_its_urls() {
        let shown = text("cannot use 'https://user:hunter2@host/path' or ftp://me@host?a@b");
        assert_eq!(shown, "cannot use 'https://host/path' or ftp://host?a@b");
    }

    #[test]
    fn what_was_sent_is_hidden_by_its_value_in_bodies_and_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer plain-old-password"));
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let sent = Sent::with(&headers);
        assert_eq!(sent.hide_in("no plain-old-password!".into()), "no <hidden>!");
        assert_eq!(sent.hide_in("application/json".into()), "application/json");
        let mut answer = HeaderMap::new();
        answer.insert("location", HeaderValue::from_static("/login?t=plain-old-password"));
        answer.insert("date", HeaderValue::from_static("today"));
        sent.hide_in_headers(&mut answer);
        assert_eq!(
            (&answer["location"], &answer["date"]),
            (&HeaderValue::from_static(HIDDEN), &HeaderValue::from_static("today"))
        );
    }

    #[test]
    fn a_message_loses_the_values_that_were_sent() {
        let value = Secret::new("plain old");
        let message = |text: &str| Sent::with(&HeaderMap::new()).message(&[&value], text);
        assert_eq!(
            message("not plain old!\nerror").as_deref(),
            Some("not <hidden>!^Jerror")
        );
        let short = Sent::with(&HeaderMap::new()).message(&[&value, &Secret::new("x")], "x is wrong");
        assert_eq!(short, None);
    }

    #[test]
    fn a_servers_message_loses_whatever_looks_like_a_credential() {
        for secret in [
            TOKEN,
            "token-abcde:bcdfghjklmnpqrstvwxz24567890abcdef",
            "abcdef.0123456789abcdef",
            "eyJhbGciOi.eyJpc3MiOi.sig",
        ] {
            let message = text(&format!(
                "Secret \"x\" is invalid: data: Invalid value: \"{secret}\": no"
            ));
            assert!(!message.contains(secret), "{message}");
            assert!(message.starts_with("Secret \"x\" is invalid"), "{message}");
        }
    }

    #[test]
    fn names_and_uids_are_left_alone() {
        for plain in [
            "deployments.apps \"cattle-cluster-agent\" not found",
            "uid 6b1d5bf2-1f2b-4a43-9d53-0d6c1a6f3a4e",
            "cattle-credentials-0123456789abcdef",
        ] {
            assert_eq!(text(plain), plain);
        }
    }
}
