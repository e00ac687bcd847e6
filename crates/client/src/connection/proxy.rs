//! The proxy for an API server, chosen as by Go's `net/http` and client-go.
//!
//! A `proxy-url` of the kubeconfig takes precedence over `NO_PROXY`. Otherwise the variables apply, matched against the
//! address of the API server. Loopback addresses are never proxied. (golang.org/x/net v0.38,
//! `http/httpproxy/proxy.go`.)

use hyper_util::client::proxy::matcher::Matcher;
use url::{Host, Url};

use super::environment::Environment;
use crate::error::Error;

/// The proxy for `server`, if any. `configured` is the kubeconfig's `proxy-url`.
pub(super) fn choose(
    configured: Option<&str>,
    server: &Url,
    environment: &Environment,
) -> Result<Option<http::Uri>, Error> {
    if let Some(url) = configured {
        return uri(url).map(Some).ok_or_else(|| invalid("proxy-url of the kubeconfig"));
    }
    let name = if server.scheme() == "http" {
        "HTTP_PROXY"
    } else {
        "HTTPS_PROXY"
    };
    let either = |name: &str| {
        environment
            .variable(name)
            .or_else(|| environment.variable(&name.to_lowercase()))
    };
    let Some(proxy) = either(name).filter(|_| !is_loopback(server)) else {
        return Ok(None);
    };
    // Go takes a bare `host:port` for an http proxy.
    let uri = if proxy.contains("://") {
        uri(proxy)
    } else {
        uri(&format!("http://{proxy}"))
    };
    let uri = uri.ok_or_else(|| invalid(name))?;
    Ok((!excluded(either("NO_PROXY").unwrap_or_default(), server)).then_some(uri))
}

/// Go: the name `localhost` and every loopback address.
fn is_loopback(server: &Url) -> bool {
    match server.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether `NO_PROXY` names the server. Items with a port count for that port only, blank ones not at all.
fn excluded(no_proxy: &str, server: &Url) -> bool {
    let port = server.port_or_known_default().unwrap_or_default();
    let items = no_proxy.split(',').map(str::trim).filter(|item| !item.is_empty());
    let hosts: Vec<&str> = items
        .filter_map(|item| for_port(item, port))
        .map(|item| item.trim_start_matches('*'))
        .collect();
    if hosts.contains(&"") {
        // A bare `*`.
        return true;
    }
    let hosts: Vec<String> = hosts
        .into_iter()
        // A leading dot means subdomains only, to Go; the matcher below would take the domain itself too.
        .filter(|host| {
            host.strip_prefix('.')
                .is_none_or(|domain| server.host_str() != Some(domain))
        })
        .map(str::to_ascii_lowercase)
        .collect();
    let everything = Matcher::builder()
        .all("http://proxy.invalid:1")
        .no(hosts.join(","))
        .build();
    server
        .as_str()
        .parse()
        .is_ok_and(|uri: http::Uri| everything.intercept(&uri).is_none())
}

/// The host of an item that counts for this port.
fn for_port(item: &str, port: u16) -> Option<&str> {
    let bare_ipv6 = item.matches(':').count() > 1 && !item.starts_with('[');
    match item.rsplit_once(':') {
        Some((host, digits)) if !bare_ipv6 && digits.chars().all(|c| c.is_ascii_digit()) && !digits.is_empty() => {
            (digits.parse() == Ok(port)).then_some(host.trim_matches(['[', ']']))
        }
        _ => Some(item.trim_matches(['[', ']'])),
    }
}

fn uri(text: &str) -> Option<http::Uri> {
    let uri: http::Uri = text.parse().ok()?;
    (matches!(uri.scheme_str()?, "http" | "https" | "socks5") && uri.host().is_some()).then_some(uri)
}

/// The address is not repeated: it may contain a password that no rule finds.
fn invalid(place: &str) -> Error {
    Error::failed(format!("the {place} is not a proxy's address"))
        .hint("http://, https:// and socks5:// proxies are supported")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy_for(server: &str, variables: &[(&str, &str)]) -> Option<String> {
        let environment = variables.iter().fold(Environment::silent(), |env, (name, value)| {
            env.with_variable(name, value)
        });
        choose(None, &server.parse().unwrap(), &environment)
            .unwrap()
            .map(|uri| uri.to_string())
    }

    #[test]
    fn no_proxy_is_matched_against_the_api_server() {
        let server = "https://api.example.com:6443";
        for (no_proxy, proxied) in [
            ("", true),
            ("api.example.com", false),
            ("example.com", false),
            (".example.com", false),
            ("other.com", true),
            ("*", false),
            ("*.example.com", false),
            (" , api.example.com ,", false),
            (",", true),
            ("api.example.com:6443", false),
            ("api.example.com:443", true),
            ("10.0.0.0/8", true),
            ("API.example.com", false),
            ("proxy.corp", true),
        ] {
            let got = proxy_for(
                server,
                &[("HTTPS_PROXY", "http://proxy.corp:3128"), ("NO_PROXY", no_proxy)],
            );
            assert_eq!(got.is_some(), proxied, "{no_proxy:?}");
        }
        for (no_proxy, proxied) in [
            ("10.0.0.0/8", false),
            ("10.1.2.3", false),
            ("10.1.2.4", true),
            ("192.168.0.0/16", true),
        ] {
            let got = proxy_for(
                "https://10.1.2.3:6443",
                &[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", no_proxy)],
            );
            assert_eq!(got.is_some(), proxied, "{no_proxy:?}");
        }
    }

    #[test]
    fn a_leading_dot_does_not_mean_the_domain_itself() {
        assert!(
            proxy_for(
                "https://example.com",
                &[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", ".example.com")]
            )
            .is_some()
        );
    }

    #[test]
    fn loopback_is_never_proxied_by_a_variable() {
        for server in [
            "https://127.0.0.1:6443",
            "https://localhost:6443",
            "https://[::1]:6443",
            "https://127.9.9.9",
        ] {
            assert_eq!(
                proxy_for(server, &[("HTTPS_PROXY", "http://proxy:1")]),
                None,
                "{server}"
            );
        }
    }

    #[test]
    fn a_proxy_without_a_scheme_is_an_http_proxy() {
        assert_eq!(
            proxy_for("https://api:6443", &[("HTTPS_PROXY", "host:3128")]).as_deref(),
            Some("http://host:3128/")
        );
        assert_eq!(
            proxy_for("https://api:6443", &[("https_proxy", "host:3128")]).as_deref(),
            Some("http://host:3128/")
        );
    }

    #[test]
    fn each_scheme_has_its_own_variable() {
        assert_eq!(proxy_for("http://api:80", &[("HTTPS_PROXY", "http://p:1")]), None);
        assert!(proxy_for("http://api:80", &[("HTTP_PROXY", "http://p:1")]).is_some());
    }

    #[test]
    fn the_kubeconfigs_proxy_url_is_used_whatever_no_proxy_says() {
        let environment = Environment::silent().with_variable("NO_PROXY", "*");
        let server = "https://127.0.0.1:6443".parse().unwrap();
        let got = choose(Some("socks5://proxy:1080"), &server, &environment).unwrap();
        assert_eq!(got.unwrap().to_string(), "socks5://proxy:1080/");
    }

    #[test]
    fn a_broken_proxy_address_is_refused_without_its_password() {
        for address in [
            "ftp://user:hunter2@proxy",
            "user:hunter2@[broken",
            "http://user:hunter2 @proxy:1",
        ] {
            let environment = Environment::silent().with_variable("HTTPS_PROXY", address);
            let error = choose(None, &"https://api".parse().unwrap(), &environment).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
