//! The error type that is printed to the user, and all conversions into it.
//!
//! The wording is kubectl's (`Error from server (NotFound): …`, `Unable to connect to the server: …`, `error: …`),
//! because users and scripts know it. All conversions are in this file, so that two rules can be reviewed together. A
//! message never repeats itself, and never contains a response body, which may be a Secret.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::core::Status;
use url::Url;

use crate::redact;

/// The reason that kube sets if a response is not a `Status`. The message is then the raw body.
pub const NO_STATUS: &str = "Failed to parse error data";

/// The kind of an error. It determines the exit code of a command, and callers may match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any other error.
    Failed,
    /// The command line is invalid.
    Usage,
    /// The object does not exist (404).
    NotFound,
    /// The object exists already (409 AlreadyExists).
    AlreadyExists,
    /// The object has changed since it was read (409, or a failed precondition).
    Conflict,
    /// The object was rejected as invalid (422).
    Invalid,
    /// A permission is missing (403).
    Forbidden,
    /// The identity is not accepted (401).
    Unauthorized,
    /// No response: a failure of DNS, routing or TLS, or a broken stream.
    Unreachable,
    /// The server is temporarily unavailable (429, 500, 502, 503, 504).
    Unavailable,
    /// Nothing to do.
    NothingToDo,
    /// Stopped before the end, resumable.
    Pending,
    /// Held by another run.
    Held,
    /// A wait has timed out.
    TimedOut,
    /// The user pressed Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// The reader of the output has closed the pipe. Nothing is printed.
    BrokenPipe,
}

impl Kind {
    /// Whether a retry may succeed.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Unavailable)
    }
}

/// An error in kubectl's wording, with hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its kind.
    pub kind: Kind,
    /// One sentence without the lead (`error:`). Our own are in lower case.
    pub message: String,
    /// What to do next, one sentence each.
    pub hints: Vec<String>,
    /// The lead of the message: `error`, `Error from server (NotFound)`, `Unable to connect to the server`.
    lead: String,
    /// What was tried, outermost first.
    tried: Vec<String>,
    /// A retry cannot succeed.
    permanent: bool,
    /// The response was larger than what is read.
    too_long: bool,
}

impl Error {
    /// An error of this program.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hints: Vec::new(),
            lead: "error".into(),
            tried: Vec::new(),
            permanent: false,
            too_long: false,
        }
    }

    /// An error of kind [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// An error of kind [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
        self
    }

    /// Adds what was tried ("read Deployment cattle-cluster-agent on the downstream cluster") in front of the message.
    /// A repeated text is added once.
    #[must_use]
    pub fn doing(mut self, what: impl fmt::Display) -> Self {
        let what = what.to_string();
        if !self.tried.iter().any(|said| said.contains(&what)) {
            self.tried.insert(0, what);
        }
        self
    }

    /// Changes the kind, and with it the exit code.
    #[must_use]
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Whether it is a network error that a retry may fix. An untrusted certificate is not.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.kind == Kind::Unreachable && !self.permanent
    }

    fn lasting(mut self) -> Self {
        self.permanent = true;
        self
    }

    fn led_by(mut self, lead: impl Into<String>) -> Self {
        self.lead = lead.into();
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.lead.as_str(), self.tried.is_empty()) {
            ("", true) => {}
            // A sentence without a lead needs one after `cannot …:`.
            ("", false) => f.write_str("error: ")?,
            (lead, _) => write!(f, "{lead}: ")?,
        }
        for what in &self.tried {
            write!(f, "cannot {what}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl StdError for Error {}

/// Adds what was tried to any result whose error converts into an [`Error`].
pub trait Doing<T> {
    /// Adds what was tried and on which side: `.doing("read Deployment x on the downstream cluster")?`.
    fn doing(self, what: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: Into<Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| error.into().doing(what))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::BrokenPipe {
            Kind::BrokenPipe
        } else {
            Kind::Failed
        };
        Self::new(kind, io_words(&error))
    }
}

impl From<serde_json::Error> for Error {
    /// Keeps only the position: the original text contains the invalid value, which may be a secret.
    fn from(error: serde_json::Error) -> Self {
        Self::failed(json_words(&error))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        status_error(&status)
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => status_error(&status),
            kube::Error::SerdeError(error) => Self::failed(json_words(&error)),
            kube::Error::FromUtf8(_) => Self::failed("the response of the server is not valid UTF-8"),
            kube::Error::ReadEvents(error) => unreachable(format!("the stream broke: {}", io_words(&error))),
            kube::Error::Service(error) => boxed(error),
            kube::Error::HyperError(error) => network(&error),
            kube::Error::RustlsTls(error) => Self::failed(format!("invalid TLS configuration: {}", root_cause(&error))),
            kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. } => {
                Self::failed("the configured proxy uses a protocol that is not supported")
                    .hint("http, https and socks5 proxies are supported")
            }
            other => Self::failed(redact::text(&root_cause(&other))),
        }
    }
}

/// Unboxes an error of our own transport. Any other error is a network error.
fn boxed(error: Box<dyn StdError + Send + Sync>) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(other) => match find::<Error>(other.as_ref()) {
            Some(ours) => ours.clone(),
            None => network(other.as_ref()),
        },
    }
}

/// `Unable to connect to the server: …`.
pub(crate) fn unreachable(message: impl Into<String>) -> Error {
    Error::new(Kind::Unreachable, message).led_by("Unable to connect to the server")
}

/// kubectl's message for an expired `--request-timeout`.
pub(crate) fn request_timed_out(timeout: Duration) -> Error {
    let timeout = crate::duration::format(timeout);
    unreachable(format!("no response within {timeout} (--request-timeout)"))
}

/// A connection that hangs, before the response or in the middle of it.
pub(crate) fn no_answer(patience: Duration) -> Error {
    unreachable(format!(
        "no complete response from the server within {}",
        crate::duration::format(patience)
    ))
}

/// A response that would fill the memory.
pub(crate) fn too_long(limit: usize) -> Error {
    let mut error = Error::failed(format!("the response of the server is longer than {} MiB", limit >> 20));
    error.too_long = true;
    error
}

/// A response that would fill the memory when it is parsed.
pub(crate) fn too_many_tokens(limit: usize) -> Error {
    let mut error = Error::failed(format!("the response of the server has more than {limit} JSON tokens"));
    error.too_long = true;
    error
}

/// A list that is given up.
pub(crate) fn endless(why: impl fmt::Display) -> Error {
    Error::failed(format!("the list of the server does not end: {why}"))
}

/// Whether a request failed because of [`too_long`] or [`too_many_tokens`].
pub(crate) fn is_too_long(error: &kube::Error) -> bool {
    find::<Error>(error).is_some_and(|error| error.too_long)
}

/// An error while connecting to the server at `url`.
pub(crate) fn from_network(error: kube::Error, url: &Url) -> Error {
    let refused = find::<std::io::Error>(&error).is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
    if !refused {
        return error.into();
    }
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    // kubectl's message, which has no lead.
    let message =
        format!("The connection to the server {host}:{port} was refused - did you specify the right host or port?");
    unreachable(message).led_by("")
}

fn status_error(status: &Status) -> Error {
    // kube converts any response into a Status. If the response was not one, it has no `status: Failure`, or it has
    // this reason and the body as its message.
    let raw = status.reason == NO_STATUS || !status.is_failure();
    let reason = if raw { "" } else { status.reason.as_str() };
    let message = if raw || status.message.is_empty() {
        format!("the server responded with {}", http_words(status.code))
    } else {
        redact::text(&status.message)
    };
    let kind = status_kind(status.code, reason);
    let error = Error::new(kind, message);
    match kind {
        Kind::Unauthorized => {
            let message = if raw || status.message.is_empty() {
                "Unauthorized".into()
            } else {
                error.message
            };
            Error::new(kind, format!("You must be logged in to the server ({message})"))
        }
        Kind::Forbidden => with_missing_rule(error.led_by("Error from server (Forbidden)"), &status.message),
        _ if reason.is_empty() => error.led_by("Error from server"),
        _ => error.led_by(format!("Error from server ({reason})")),
    }
}

fn status_kind(code: u16, reason: &str) -> Kind {
    match (reason, code) {
        ("AlreadyExists", _) => Kind::AlreadyExists,
        ("NotFound", _) | (_, 404) => Kind::NotFound,
        ("Conflict", _) | (_, 409 | 412) => Kind::Conflict,
        ("Invalid", _) | (_, 422) => Kind::Invalid,
        ("Forbidden", _) | (_, 403) => Kind::Forbidden,
        ("Unauthorized", _) | (_, 401) => Kind::Unauthorized,
        (_, 429 | 500..=504) => Kind::Unavailable,
        _ => Kind::Failed,
    }
}

/// The rule that would allow the request, parsed from the API server's message.
/// (kubernetes/kubernetes v1.33, `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`.)
fn with_missing_rule(error: Error, message: &str) -> Error {
    // No rule would help an identity that the server does not know. Rancher calls it by the name of the group.
    if ["system:anonymous", "system:unauthenticated"]
        .iter()
        .any(|anonymous| message.contains(anonymous))
    {
        return error.hint(
            "the server does not accept these credentials: the token is invalid, expired or revoked; use another one",
        );
    }
    let Some(rest) = message.split(" cannot ").nth(1) else {
        return error;
    };
    let quoted: Vec<&str> = rest.split('"').collect();
    let verb = rest.split(' ').next().unwrap_or_default();
    let ([_, resource, mid, group, ..], false) = (quoted.as_slice(), verb.is_empty()) else {
        return error;
    };
    if !mid.contains("API group") {
        return error;
    }
    let place = match quoted.get(5) {
        Some(namespace) if rest.contains(" in the namespace ") => format!("a Role in namespace {namespace}"),
        _ => "a ClusterRole".to_owned(),
    };
    error.hint(format!(
        "the missing rule, in {place}: {{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [\"{verb}\"]}}"
    ))
}

fn http_words(code: u16) -> String {
    match http::StatusCode::from_u16(code)
        .ok()
        .and_then(|code| code.canonical_reason())
    {
        Some(words) => format!("{code} {words}"),
        None => format!("status {code}"),
    }
}

pub(crate) fn json_words(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Io | serde_json::error::Category::Eof => "ends too early",
        serde_json::error::Category::Syntax => "is not valid JSON",
        serde_json::error::Category::Data => "does not have the expected fields",
    };
    format!(
        "the response of the server {what} (line {}, column {})",
        error.line(),
        error.column()
    )
}

/// The message of an `io::Error` as in the C library, without Rust's `(os error 2)`.
pub fn io_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

/// The cause of an error. `io::Error::source()` skips the error that it wraps.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| cause(*error)).find_map(|error| error.downcast_ref::<T>())
}

/// The innermost message of a chain. Those of hyper and kube repeat it and are not shown.
pub(crate) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let error = std::iter::successors(Some(error), |error| cause(*error))
        .last()
        .unwrap_or(error);
    match error.downcast_ref::<std::io::Error>() {
        Some(io) => io_words(io),
        None => error.to_string(),
    }
}

/// A network error as a message that names the cause. Certificate errors have their well-known wording.
pub fn network(error: &(dyn StdError + 'static)) -> Error {
    match find::<rustls::Error>(error) {
        Some(tls) => unreachable(tls_words(tls)).lasting(),
        None => unreachable(redact::text(&root_cause(error))),
    }
}

fn tls_words(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    match error {
        // Two clusters whose authorities have the same name, as all of kubeadm have, give a bad signature.
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "tls: the server's certificate is signed by an unknown authority".into()
        }
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            format!(
                "tls: the server's certificate has expired (local time {})",
                Timestamp::now()
            )
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "tls: the server's certificate is not valid for this host name".into()
        }
        other => format!("tls: {other}"),
    }
}

#[cfg(test)]
mod tests;
