//! Where the supervisor of a server and its API server are reached.
//!
//! Each server is a fact of its own, so it is addressed directly: by the InternalIP of its Node, or as the user says. A host is
//! parsed before it is used anywhere.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use rustls::pki_types::ServerName;
use url::Url;

use crate::distribution::{API_PORT, SupervisorKind};

/// An IP address or a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(ServerName<'static>);

/// An invalid address. The message quotes what is public: a node, a host, a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Not a host.
    #[error("{0:?} is neither an IP address nor a host name")]
    Host(String),
    /// Not a port.
    #[error("{0:?} is not a port")]
    Port(String),
    /// Not `NODE=HOST[:PORT][,API-PORT]`.
    #[error("{0:?} is not NODE=HOST[:PORT][,API-PORT]")]
    Form(String),
}

impl Host {
    /// The name that the server's certificate must be valid for.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.0.clone()
    }

    fn ip(&self) -> Option<IpAddr> {
        match &self.0 {
            ServerName::IpAddress(ip) => Some((*ip).into()),
            _ => None,
        }
    }
}

impl FromStr for Host {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress::Host(text.to_owned());
        let name = ServerName::try_from(text.to_owned()).map_err(|_| invalid())?;
        // A resolver takes `127.1` or `0x7f.1` for an address.
        let last = text.rsplit('.').find(|label| !label.is_empty()).unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        match &name {
            ServerName::DnsName(_) if is_number => Err(invalid()),
            _ => Ok(Self(name)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            _ => f.write_str(&self.0.to_str()),
        }
    }
}

/// The addresses of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Its host.
    pub host: Host,
    /// The port of its supervisor.
    pub port: u16,
    /// The port of its API server.
    pub api_port: u16,
}

impl ServerAddress {
    /// The default ports at a Node's InternalIP.
    pub fn of_node(kind: SupervisorKind, internal_ip: &str) -> Result<Self, InvalidAddress> {
        Ok(Self {
            host: internal_ip.parse()?,
            port: kind.port(),
            api_port: API_PORT,
        })
    }

    /// What a connection is opened to.
    pub(crate) fn socket(&self) -> (String, u16) {
        (self.host.0.to_str().into_owned(), self.port)
    }

    /// The URL of its API server.
    pub fn api_url(&self) -> Url {
        let url = format!("https://{}:{}", self.host, self.api_port);
        url.parse().expect("a parsed host and a port are a URL")
    }
}

impl fmt::Display for ServerAddress {
    /// That of the supervisor: `10.0.0.1:6443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `NODE=HOST[:PORT][,API-PORT]`: where a node is reached instead of at its InternalIP. An IPv6 address with a port is in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressOverride {
    /// The name of the Node.
    pub node: String,
    host: Host,
    port: Option<u16>,
    api_port: Option<u16>,
}

impl AddressOverride {
    /// The address of this server. On K3s the API server has the port of the supervisor.
    pub fn address(&self, kind: SupervisorKind) -> ServerAddress {
        let port = self.port.unwrap_or(kind.port());
        let default = match kind {
            SupervisorKind::K3s => port,
            SupervisorKind::Rke2 => API_PORT,
        };
        ServerAddress {
            host: self.host.clone(),
            port,
            api_port: self.api_port.unwrap_or(default),
        }
    }
}

impl fmt::Display for AddressOverride {
    /// As it is parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.node, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        self.api_port.map_or(Ok(()), |port| write!(f, ",{port}"))
    }
}

impl FromStr for AddressOverride {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let form = || InvalidAddress::Form(text.to_owned());
        let (node, rest) = text.split_once('=').ok_or_else(form)?;
        let (host_and_port, api_port) = match rest.split_once(',') {
            Some((address, port)) => (address, Some(parse_port(port)?)),
            None => (rest, None),
        };
        if node.is_empty() || host_and_port.is_empty() {
            return Err(form());
        }
        let (host, port) = split_port(host_and_port).ok_or_else(form)?;
        Ok(Self {
            node: node.to_owned(),
            host: host.parse()?,
            port: port.map(parse_port).transpose()?,
            api_port,
        })
    }
}

/// Host and port of `HOST`, `HOST:PORT`, `[IPv6]`, `[IPv6]:PORT` or `IPv6`.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some((text, None));
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, InvalidAddress> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.filter(|_| !text.starts_with('+'))
        .ok_or_else(|| InvalidAddress::Port(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(SupervisorKind::K3s, "10.0.0.1", "10.0.0.1:6443", "https://10.0.0.1:6443/")]
    #[case(SupervisorKind::Rke2, "10.0.0.1", "10.0.0.1:9345", "https://10.0.0.1:6443/")]
    #[case(SupervisorKind::Rke2, "fd00::1", "[fd00::1]:9345", "https://[fd00::1]:6443/")]
    #[case(
        SupervisorKind::K3s,
        "server-1.example",
        "server-1.example:6443",
        "https://server-1.example:6443/"
    )]
    fn a_node_has_the_default_ports(
        #[case] kind: SupervisorKind,
        #[case] ip: &str,
        #[case] supervisor: &str,
        #[case] api: &str,
    ) {
        let address = ServerAddress::of_node(kind, ip).unwrap();
        assert_eq!(
            (address.to_string().as_str(), address.api_url().as_str()),
            (supervisor, api)
        );
    }

    #[rstest]
    #[case("")]
    #[case("$(reboot)")]
    #[case("10.0.0.1; reboot")]
    #[case("-oProxyCommand=x")]
    #[case("10.0.0.256")]
    #[case("127.1")]
    #[case("0x7f000001")]
    #[case("2130706433")]
    #[case("host:6443")]
    #[case("[fd00::1]")]
    #[case("fe80::1%eth0")]
    #[case("user@host")]
    #[case("a/b")]
    fn anything_else_is_no_host(#[case] text: &str) {
        assert_eq!(text.parse::<Host>(), Err(InvalidAddress::Host(text.to_owned())));
    }

    #[rstest]
    #[case("s1=10.0.0.1", "10.0.0.1:6443", 6443, "10.0.0.1:9345", 6443)]
    #[case(
        "s1=bastion.example:7000",
        "bastion.example:7000",
        7000,
        "bastion.example:7000",
        6443
    )]
    #[case("s1=127.0.0.1:7000,7001", "127.0.0.1:7000", 7001, "127.0.0.1:7000", 7001)]
    #[case("s1=127.0.0.1,7001", "127.0.0.1:6443", 7001, "127.0.0.1:9345", 7001)]
    #[case("s1=fd00::1", "[fd00::1]:6443", 6443, "[fd00::1]:9345", 6443)]
    #[case("s1=[fd00::1]", "[fd00::1]:6443", 6443, "[fd00::1]:9345", 6443)]
    #[case("s1=[fd00::1]:7000", "[fd00::1]:7000", 7000, "[fd00::1]:7000", 6443)]
    fn an_override_names_host_and_ports(
        #[case] text: &str,
        #[case] k3s: &str,
        #[case] k3s_api: u16,
        #[case] rke2: &str,
        #[case] rke2_api: u16,
    ) {
        let parsed: AddressOverride = text.parse().unwrap();
        assert_eq!(parsed.node, "s1");
        for (kind, supervisor, api) in [
            (SupervisorKind::K3s, k3s, k3s_api),
            (SupervisorKind::Rke2, rke2, rke2_api),
        ] {
            let address = parsed.address(kind);
            assert_eq!((address.to_string().as_str(), address.api_port), (supervisor, api));
        }
    }

    #[rstest]
    #[case("s1", "\"s1\" is not NODE=HOST[:PORT][,API-PORT]")]
    #[case("=10.0.0.1", "\"=10.0.0.1\" is not NODE=HOST[:PORT][,API-PORT]")]
    #[case("s1=", "\"s1=\" is not NODE=HOST[:PORT][,API-PORT]")]
    #[case("s1=[fd00::1", "\"s1=[fd00::1\" is not NODE=HOST[:PORT][,API-PORT]")]
    #[case("s1=[fd00::1]7", "\"s1=[fd00::1]7\" is not NODE=HOST[:PORT][,API-PORT]")]
    #[case("s1=[10.0.0.1]", "\"s1=[10.0.0.1]\" is not NODE=HOST[:PORT][,API-PORT]")]
    #[case("s1=host:0", "\"0\" is not a port")]
    #[case("s1=host:70000", "\"70000\" is not a port")]
    #[case("s1=host:", "\"\" is not a port")]
    #[case("s1=host:+7", "\"+7\" is not a port")]
    #[case("s1=host,x", "\"x\" is not a port")]
    #[case("s1=a b", "\"a b\" is neither an IP address nor a host name")]
    fn an_invalid_override_is_refused(#[case] text: &str, #[case] reason: &str) {
        assert_eq!(text.parse::<AddressOverride>().unwrap_err().to_string(), reason);
    }
}
