//! Combines the flags and the kubeconfig. Flags take precedence over the context.
//!
//! (kubernetes/client-go v0.33, `tools/clientcmd/client_config.go`.)

use std::sync::Arc;

use base64::Engine as _;
use kube::config::{AuthInfo, Cluster, Context};
use url::Url;

use super::environment::Environment;
use super::identity::Identity;
use super::kubeconfig::{Merged, non_empty};
use super::options::{ConnectionOptions, ContextCluster};
use super::{Connection, Impersonate, Trust};
use crate::error::{Error, io_words};

/// kubectl's default address.
const DEFAULT_SERVER: &str = "http://localhost:8080";

pub(super) fn resolve(options: &ConnectionOptions, environment: &Environment) -> Result<Connection, Error> {
    let explicit = options
        .kubeconfig
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty());
    let merged = Merged::load(explicit, environment)?;
    let chosen = Chosen::from(options, &merged)?;
    let configured = set(options.server.as_ref()).or_else(|| non_empty(chosen.cluster.server.clone()));
    if configured.is_none()
        && chosen.cluster_name.is_none()
        && let Some(in_cluster) = in_cluster(options, environment)?
    {
        return Ok(in_cluster);
    }
    if let (None, Some(name)) = (&configured, &chosen.cluster_name) {
        return Err(Error::failed(format!(
            "invalid configuration: no server found for cluster \"{name}\""
        )));
    }
    let is_default = configured.is_none();
    let server = address(configured.as_deref().unwrap_or(DEFAULT_SERVER))?;
    let namespace = set(options.namespace.as_ref()).or_else(|| non_empty(chosen.context.namespace.clone()));
    let trust = trust(options, &chosen.cluster)?;
    let user = with_options(options, chosen.user);
    Ok(Connection {
        context: chosen.context_name,
        namespace: namespace.unwrap_or_else(|| "default".into()),
        impersonate: impersonate(options, &user)?,
        identity: Arc::new(Identity::of(user, &chosen.cluster, &server, &trust, environment)?),
        server,
        trust,
        proxy_url: non_empty(chosen.cluster.proxy_url.clone()),
        request_timeout: Some(options.request_timeout).filter(|timeout| !timeout.is_zero()),
        disable_compression: options
            .disable_compression
            .or(chosen.cluster.disable_compression)
            .unwrap_or(false),
        plain_http: options.allow_plain_http,
        is_default,
        environment: Arc::new(environment.clone()),
    })
}

/// The contexts whose cluster has an address and a CA. What cannot be read is left out: it is no match for anything.
pub(super) fn contexts(merged: &Merged) -> Vec<ContextCluster> {
    let read = |(name, context): &(String, Context)| {
        let cluster = find(&merged.clusters, &context.cluster)?;
        Some(ContextCluster {
            name: name.clone(),
            server: address(&non_empty(cluster.server.clone())?).ok()?,
            authority: trust(&ConnectionOptions::default(), &cluster).ok()?.authority?,
        })
    };
    merged.contexts.iter().filter_map(read).collect()
}

fn set(value: Option<&String>) -> Option<String> {
    non_empty(value.cloned())
}

/// The parts of the kubeconfig that the flags select.
struct Chosen {
    context_name: Option<String>,
    context: Context,
    cluster_name: Option<String>,
    cluster: Cluster,
    user: AuthInfo,
}

impl Chosen {
    fn from(options: &ConnectionOptions, merged: &Merged) -> Result<Self, Error> {
        let by_flag = set(options.context.as_ref());
        let context_name = by_flag.clone().or_else(|| merged.current_context.clone());
        let context = match &context_name {
            None => Context::default(),
            Some(name) => match find(&merged.contexts, name) {
                Some(context) => context,
                None if by_flag.is_some() => return Err(unknown("context", name, &merged.contexts)),
                None => return Err(no_current_context(name, merged)),
            },
        };
        let cluster_name = set(options.cluster.as_ref()).or_else(|| non_empty(Some(context.cluster.clone())));
        let cluster = match &cluster_name {
            Some(name) => find(&merged.clusters, name),
            None => None,
        };
        if let (Some(name), None, Some(_)) = (&cluster_name, &cluster, set(options.cluster.as_ref())) {
            return Err(unknown("cluster", name, &merged.clusters));
        }
        let user = match (set(options.user.as_ref()), non_empty(context.user.clone())) {
            (Some(name), _) => find(&merged.users, &name).ok_or_else(|| unknown("auth info", &name, &merged.users))?,
            // As in kubectl, a context whose user does not exist is anonymous.
            (None, Some(name)) => find(&merged.users, &name).unwrap_or_default(),
            (None, None) => AuthInfo::default(),
        };
        Ok(Self {
            context_name,
            context,
            cluster_name,
            cluster: cluster.unwrap_or_default(),
            user,
        })
    }
}

fn find<T: Clone>(list: &[(String, T)], name: &str) -> Option<T> {
    list.iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.clone())
}

/// kubectl's message, and a similar name.
fn unknown<T>(what: &str, name: &str, known: &[(String, T)]) -> Error {
    with_candidates(Error::failed(format!("{what} \"{name}\" does not exist")), name, known)
}

fn no_current_context(name: &str, merged: &Merged) -> Error {
    let error = Error::failed(format!(
        "invalid configuration: context was not found for specified context: {name}"
    ));
    with_candidates(error, name, &merged.contexts)
}

fn with_candidates<T>(error: Error, name: &str, known: &[(String, T)]) -> Error {
    let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    match near(name, &names) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None if names.is_empty() || names.len() > 10 => error,
        None => error.hint(format!("the kubeconfig has: {}", names.join(", "))),
    }
}

/// The most similar name, if one is similar enough.
pub(crate) fn near<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |name: &str| strsim::jaro_winkler(typed, name);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.8).then_some(best)
}

fn address(text: &str) -> Result<Url, Error> {
    // kubectl takes a bare host:port for http.
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    // The address is not repeated: it may contain a password that no rule finds.
    let refused = || Error::failed("the address of the API server is not a URL").hint("use https://HOST:PORT");
    let url: Url = full.parse().map_err(|_| refused())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refused());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            Error::failed("the address of the API server contains a user name or a password")
                .hint("move them into the user of the kubeconfig"),
        );
    }
    Ok(url)
}

fn trust(options: &ConnectionOptions, cluster: &Cluster) -> Result<Trust, Error> {
    let insecure = options
        .insecure_skip_tls_verify
        .or(cluster.insecure_skip_tls_verify)
        .unwrap_or(false);
    let server_name = set(options.tls_server_name.as_ref()).or_else(|| non_empty(cluster.tls_server_name.clone()));
    let by_flag = set(options.certificate_authority.as_ref());
    let authority = match (&by_flag, non_empty(cluster.certificate_authority_data.clone())) {
        (Some(path), _) => Some(pem_file(path, "certificate authority")?),
        (None, Some(data)) => Some(pem_data(&data, "certificate-authority-data")?),
        (None, None) => match non_empty(cluster.certificate_authority.clone()) {
            Some(path) => Some(pem_file(&path, "certificate authority")?),
            None => None,
        },
    };
    // The flag overrides the kubeconfig's CA. Both settings in one place are an error.
    if insecure && (by_flag.is_some() || (options.insecure_skip_tls_verify.is_none() && authority.is_some())) {
        return Err(Error::failed(
            "specifying a root certificates file with the insecure flag is not allowed",
        ));
    }
    Ok(Trust {
        authority: authority.filter(|_| !insecure),
        authority_file: None,
        insecure,
        server_name,
    })
}

pub(super) fn pem_file(path: &str, what: &str) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::failed(format!("unable to read {what} {path}: {}", io_words(&error))))
}

pub(super) fn pem_data(data: &str, what: &str) -> Result<String, Error> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(data.trim()).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Error::failed(format!("{what} of the kubeconfig is not base64-encoded PEM")))
}

/// Applies the identity of the flags. A token flag replaces every other credential.
fn with_options(options: &ConnectionOptions, mut user: AuthInfo) -> AuthInfo {
    if let Some(token) = options.token.as_ref().filter(|token| !token.is_empty()) {
        let kept = (
            user.impersonate,
            user.impersonate_uid,
            user.impersonate_groups,
            user.impersonate_user_extra,
        );
        user = AuthInfo {
            token: Some(token.expose().to_owned().into()),
            ..AuthInfo::default()
        };
        (
            user.impersonate,
            user.impersonate_uid,
            user.impersonate_groups,
            user.impersonate_user_extra,
        ) = kept;
    }
    if let Some(path) = set(options.client_certificate.as_ref()) {
        user.client_certificate = Some(path);
        user.client_certificate_data = None;
    }
    if let Some(path) = set(options.client_key.as_ref()) {
        user.client_key = Some(path);
        user.client_key_data = None;
    }
    user
}

fn impersonate(options: &ConnectionOptions, user: &AuthInfo) -> Result<Impersonate, Error> {
    let groups: Vec<String> = options
        .impersonate_groups
        .iter()
        .filter(|group| !group.is_empty())
        .cloned()
        .collect();
    let mut extra: Vec<(String, Vec<String>)> = Vec::new();
    for pair in options.impersonate_extra.iter().filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::usage(format!("--as-user-extra \"{pair}\" is not KEY=VALUE")))?;
        match extra.iter_mut().find(|(known, _)| known == key) {
            Some((_, values)) => values.push(value.to_owned()),
            None => extra.push((key.to_owned(), vec![value.to_owned()])),
        }
    }
    if extra.is_empty() {
        extra = user
            .impersonate_user_extra
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        extra.sort();
    }
    let impersonate = Impersonate {
        user: set(options.impersonate.as_ref()).or_else(|| non_empty(user.impersonate.clone())),
        uid: set(options.impersonate_uid.as_ref()).or_else(|| non_empty(user.impersonate_uid.clone())),
        groups: if groups.is_empty() {
            user.impersonate_groups.clone().unwrap_or_default()
        } else {
            groups
        },
        extra,
    };
    let more = impersonate.uid.is_some() || !impersonate.groups.is_empty() || !impersonate.extra.is_empty();
    if more && impersonate.user.is_none() {
        return Err(Error::failed(
            "requesting uid, groups or user-extra for impersonation without impersonating a user",
        ));
    }
    Ok(impersonate)
}

/// A pod's service account, if there is no kubeconfig.
fn in_cluster(options: &ConnectionOptions, environment: &Environment) -> Result<Option<Connection>, Error> {
    let (Some(host), Some(port)) = (
        environment.variable("KUBERNETES_SERVICE_HOST"),
        environment.variable("KUBERNETES_SERVICE_PORT"),
    ) else {
        return Ok(None);
    };
    let directory = environment.service_account();
    let token = directory.join("token");
    if !token.is_file() {
        return Ok(None);
    }
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let server = address(&format!("https://{host}:{port}"))?;
    let namespace = set(options.namespace.as_ref())
        .or_else(|| environment.variable("POD_NAMESPACE").map(str::to_owned))
        .or_else(|| {
            non_empty(
                std::fs::read_to_string(directory.join("namespace"))
                    .ok()
                    .map(|text| text.trim().to_owned()),
            )
        });
    let bundle = directory.join("ca.crt");
    let mut trust = trust(options, &Cluster::default())?;
    if trust.authority.is_none() && !trust.insecure && bundle.is_file() {
        trust.authority = Some(pem_file(&bundle.to_string_lossy(), "certificate authority")?);
        trust.authority_file = Some(bundle);
    }
    let mounted = AuthInfo {
        token_file: Some(token.to_string_lossy().into_owned()),
        ..AuthInfo::default()
    };
    let user = with_options(options, mounted);
    Ok(Some(Connection {
        context: None,
        namespace: namespace.unwrap_or_else(|| "default".into()),
        impersonate: impersonate(options, &user)?,
        identity: Arc::new(Identity::of(user, &Cluster::default(), &server, &trust, environment)?),
        server,
        trust,
        proxy_url: None,
        request_timeout: Some(options.request_timeout).filter(|timeout| !timeout.is_zero()),
        disable_compression: options.disable_compression.unwrap_or(false),
        plain_http: options.allow_plain_http,
        is_default: false,
        environment: Arc::new(environment.clone()),
    }))
}
