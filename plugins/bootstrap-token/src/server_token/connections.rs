//! How the supervisors of a cluster are reached: the token, the addresses of the servers, and what their CA is verified by.

use std::path::PathBuf;
use std::sync::Arc;

use cli::rotation::Commands;
use cli::ui::Ui;
use client::connection::user_agent;
use client::error::Error;
use supervisor::ca::NoPin;
use supervisor::node::ClusterNode;
use supervisor::{AddressOverride, CaHash, Host, Options, Pin, ServerAddress, Supervisor, SupervisorKind, read_ca};

use super::given_token::GivenToken;
use crate::cluster::{ClusterConnection, MANAGER};
use crate::private_file;

/// The flags of every command about the server token.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SupervisorFlags {
    /// Read the server token from this file, which only its owner may access (0600)
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "token_stdin")]
    token_file: Option<PathBuf>,

    /// Read the server token from standard input
    #[arg(long)]
    token_stdin: bool,

    #[command(flatten)]
    pub(crate) addresses: ServerFlags,
}

/// Where the servers are, and how they are verified.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ServerFlags {
    /// Reach the server NODE at this address instead of its InternalIP. The default ports are 6443, and 9345 for the supervisor of RKE2. Can be repeated
    #[arg(
        long = "server-address",
        value_name = "NODE=HOST[:PORT][,API-PORT]",
        help_heading = "Connection options"
    )]
    server_addresses: Vec<AddressOverride>,

    // A string, because an error of the parser would repeat a token that was passed by mistake.
    /// Verify the servers by this hash of their CA: the digits between K10 and :: in the file server/token. By default, the hash in the token, or else the CA in the kubeconfig
    #[arg(long, value_name = "HASH", help_heading = "Connection options")]
    ca_hash: Option<String>,
}

impl SupervisorFlags {
    /// Reads the token, if a flag names it.
    pub(crate) async fn token(&self, ui: &Ui) -> Result<Option<GivenToken>, Error> {
        let (text, place) = match &self.token_file {
            Some(path) => (private_file::read(path)?, path.display().to_string()),
            None if self.token_stdin => (ui.read_secret().await?, "stdin".to_owned()),
            None => return Ok(None),
        };
        let token = GivenToken::of_line(&text);
        token
            .map(Some)
            .map_err(|error| Error::usage(format!("invalid token in {place}: {error}")))
    }

    /// These flags in the commands of hints.
    pub(crate) fn typed(&self, commands: Commands) -> Commands {
        let file = self.token_file.as_ref().map(|path| path.display().to_string());
        let commands = commands.with("--token-file", file.as_deref());
        let commands = if self.token_stdin {
            commands.switched_on("--token-stdin")
        } else {
            commands
        };
        self.addresses.typed(commands)
    }
}

impl ServerFlags {
    /// These flags in the commands of hints.
    pub(crate) fn typed(&self, commands: Commands) -> Commands {
        let commands = commands.with("--ca-hash", self.ca_hash.as_deref());
        let addresses = self.server_addresses.iter();
        addresses.fold(commands, |commands, address| {
            commands.with("--server-address", Some(&address.to_string()))
        })
    }

    pub(crate) fn ca_hash(&self) -> Result<Option<CaHash>, Error> {
        let parsed = self.ca_hash.as_deref().map(str::parse).transpose();
        parsed.map_err(|error| Error::usage(format!("invalid value for --ca-hash: {error}")))
    }

    /// The servers with a Node.
    ///
    /// # Errors
    /// If there are none, or `--server-address` names another one.
    pub(crate) fn servers(&self, nodes: &[ClusterNode]) -> Result<Vec<ServerTarget>, Error> {
        self.check_names()?;
        let servers: Vec<(&ClusterNode, SupervisorKind)> = nodes
            .iter()
            .filter_map(|node| Some((node, node.supervisor()?)))
            .collect();
        if servers.is_empty() {
            let is_known = nodes.iter().any(|node| node.distribution.supervisor().is_some());
            return Err(Error::failed(if is_known || nodes.is_empty() {
                "no server of the cluster has a Node"
            } else {
                "the cluster runs neither K3s nor RKE2, so it has no server token"
            }));
        }
        let is_server = |name: &str| servers.iter().any(|(node, _)| node.name == name);
        if let Some(other) = self.server_addresses.iter().find(|named| !is_server(&named.node)) {
            let names: Vec<&str> = servers.iter().map(|(node, _)| node.name.as_str()).collect();
            return Err(
                Error::usage(format!("server {:?} of --server-address not found", other.node))
                    .hint(format!("the servers are {}", names.join(", "))),
            );
        }
        let target = |(node, kind): (&ClusterNode, SupervisorKind)| ServerTarget {
            name: node.name.clone(),
            version: Some(node.version.clone()),
            location: self.location(node, kind),
        };
        Ok(servers.into_iter().map(target).collect())
    }

    fn location(&self, node: &ClusterNode, kind: SupervisorKind) -> Location {
        if let Some(named) = self.server_addresses.iter().find(|named| named.node == node.name) {
            return Location::Known(kind, named.address(kind));
        }
        match node.internal_ips.first() {
            None => Location::Unknown("its Node has no InternalIP".to_owned()),
            Some(ip) => match ServerAddress::of_node(kind, ip) {
                Ok(address) => Location::Known(kind, address),
                Err(error) => Location::Unknown(format!("its Node has an invalid InternalIP: {error}")),
            },
        }
    }

    /// Whether servers can be reached without the Kubernetes API.
    pub(crate) fn names_servers(&self) -> bool {
        !self.server_addresses.is_empty()
    }

    /// The named servers alone, without the Kubernetes API.
    pub(crate) fn named_servers(&self) -> Result<Vec<ServerTarget>, Error> {
        self.check_names()?;
        let targets = self.server_addresses.iter().map(|named| ServerTarget {
            name: named.node.clone(),
            version: None,
            location: Location::Named(named.clone()),
        });
        Ok(targets.collect())
    }

    fn check_names(&self) -> Result<(), Error> {
        let names = || self.server_addresses.iter().map(|named| &named.node);
        match names()
            .enumerate()
            .find(|(at, name)| names().take(*at).any(|other| other == *name))
        {
            Some((_, name)) => Err(Error::usage(format!("--server-address names server {name:?} twice"))),
            None => Ok(()),
        }
    }
}

/// What every connection to a supervisor needs.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pin: Pin,
    options: Options,
}

impl Access {
    /// `token`: the hash of the CA in a token that was passed.
    ///
    /// # Errors
    /// If there is nothing to verify the CA of the servers by.
    pub(crate) fn new(
        flags: &ServerFlags,
        token: Option<&CaHash>,
        cluster: &ClusterConnection,
        ui: &Ui,
    ) -> Result<Self, Error> {
        if cluster.is_through_rancher() {
            ui.warn("the kubeconfig leads through Rancher's proxy, which does not carry requests to supervisors: they are sent directly to the servers");
        }
        let authority = cluster.connection.authority();
        Ok(Self {
            pin: pin(
                flags.ca_hash()?.as_ref(),
                token,
                authority,
                cluster.is_through_rancher(),
            )?,
            options: Options::new(user_agent(MANAGER, env!("CARGO_PKG_VERSION")), Arc::new(ui.clone())),
        })
    }
}

/// `authority`: the CA of the kubeconfig. That of Rancher verifies no supervisor.
fn pin(
    flag: Option<&CaHash>,
    token: Option<&CaHash>,
    authority: Option<&str>,
    is_through_rancher: bool,
) -> Result<Pin, Error> {
    let pin = Pin::choose(flag, token, authority.filter(|_| !is_through_rancher));
    pin.map_err(|error| {
        let is_rancher = error == NoPin::Missing && is_through_rancher;
        let mut error = Error::from(error);
        if is_rancher {
            "the CA of the cluster cannot be verified: the token has no hash of it, and the kubeconfig has the CA of Rancher"
                .clone_into(&mut error.message);
        }
        error
    })
}

impl Access {
    /// How long one write may take.
    pub(crate) fn longest_write(&self) -> std::time::Duration {
        self.options.connect_timeout + self.options.write_timeout
    }
}

/// A server to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerTarget {
    /// The name of its Node.
    pub name: String,
    /// That of its Node. `None`: the Kubernetes API was not asked.
    pub version: Option<String>,
    location: Location,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Location {
    Known(SupervisorKind, ServerAddress),
    /// Whether it is K3s or RKE2 is not known, and with it the default ports.
    Named(AddressOverride),
    /// It has no address, for this reason.
    Unknown(String),
}

impl ServerTarget {
    /// Its address, if it is known before the server is asked.
    pub(crate) fn address(&self) -> Option<&ServerAddress> {
        match &self.location {
            Location::Known(_, address) => Some(address),
            Location::Named(_) | Location::Unknown(_) => None,
        }
    }

    /// K3s or RKE2, as far as that is known before the server is asked: by its Node, else by the port of RKE2.
    pub(crate) fn kind(&self) -> Option<SupervisorKind> {
        match &self.location {
            Location::Known(kind, _) => Some(*kind),
            Location::Named(named) => {
                let port = named.address(SupervisorKind::K3s).port;
                (port == SupervisorKind::Rke2.port()).then_some(SupervisorKind::Rke2)
            }
            Location::Unknown(_) => None,
        }
    }

    /// Where it is reached.
    pub(crate) fn host(&self) -> Option<Host> {
        match &self.location {
            Location::Known(_, address) => Some(address.host.clone()),
            Location::Named(named) => Some(named.address(SupervisorKind::K3s).host),
            Location::Unknown(_) => None,
        }
    }

    /// Verifies the CA of the server.
    pub(crate) async fn connect(&self, access: &Access) -> Result<Supervisor, Error> {
        let (kind, address) = match &self.location {
            Location::Known(kind, address) => (*kind, address.clone()),
            Location::Named(named) => recognize(named, &access.options).await?,
            Location::Unknown(reason) => return Err(Error::failed(reason)),
        };
        let supervisor = Supervisor::connect(kind, address, &access.pin, access.options.clone()).await;
        supervisor.map_err(Error::from)
    }
}

/// Whether a named server is K3s or RKE2, and the address of its supervisor. By default that is the port of K3s, on which RKE2 serves no
/// `/cacerts`, or else that of RKE2. A CA that is not K3s' or RKE2's own has another name: then the port decides.
async fn recognize(
    named: &AddressOverride,
    options: &Options,
) -> Result<(SupervisorKind, ServerAddress), supervisor::Error> {
    let (k3s, rke2) = (named.address(SupervisorKind::K3s), named.address(SupervisorKind::Rke2));
    let (bundle, port) = match read_ca(&k3s, options).await {
        Ok(bundle) => (bundle, k3s.port),
        Err(error) if k3s.port == rke2.port => return Err(error),
        Err(error) => match read_ca(&rke2, options).await {
            Ok(bundle) => (bundle, rke2.port),
            Err(_) => return Err(error),
        },
    };
    let by_port = || {
        if port == SupervisorKind::Rke2.port() {
            SupervisorKind::Rke2
        } else {
            SupervisorKind::K3s
        }
    };
    let kind = bundle.kind().unwrap_or_else(by_port);
    let address = named.address(kind);
    Ok((kind, ServerAddress { port, ..address }))
}

#[cfg(test)]
mod tests {
    use client::error::Kind;
    use rstest::rstest;
    use supervisor::Distribution;
    use supervisor::node::{EtcdMember, StartConfiguration};

    use super::*;

    fn node(name: &str, distribution: Distribution, is_server: bool, ip: &str) -> ClusterNode {
        ClusterNode {
            name: name.to_owned(),
            uid: String::new(),
            machine_id: String::new(),
            distribution,
            version: "v1.36.3+k3s1".to_owned(),
            is_control_plane: is_server,
            is_etcd: is_server,
            etcd_member: EtcdMember::Voter,
            is_ready: Some(true),
            has_been_ready: Some(true),
            internal_ips: vec![ip.to_owned()],
            start: StartConfiguration::Unknown("the node does not show its arguments"),
            manager: None,
        }
    }

    fn flags(addresses: &[&str]) -> ServerFlags {
        ServerFlags {
            server_addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ca_hash: None,
        }
    }

    #[test]
    fn servers_are_reached_at_their_internal_ip_or_where_the_user_says() {
        let mut nodes = vec![
            node("s1", Distribution::K3s, true, "10.0.0.1"),
            node("s2", Distribution::K3s, true, "10.0.0.2"),
            node("s3", Distribution::K3s, true, "$(reboot)"),
            node("s4", Distribution::K3s, true, ""),
            node("a1", Distribution::K3s, false, "10.0.0.9"),
        ];
        nodes[3].internal_ips.clear();
        let servers = flags(&["s2=bastion.example:7000,7001"]).servers(&nodes).unwrap();
        let addresses = servers.iter().map(|server| server.address().map(ToString::to_string));
        let expected = [Some("10.0.0.1:6443"), Some("bastion.example:7000"), None, None];
        assert_eq!(
            addresses.collect::<Vec<_>>(),
            expected.map(|address| address.map(str::to_owned))
        );
        let Location::Unknown(reason) = &servers[2].location else {
            panic!("{servers:?}")
        };
        assert!(reason.contains("neither an IP address nor a host name"), "{reason}");
        assert_eq!(
            servers[3].location,
            Location::Unknown("its Node has no InternalIP".to_owned())
        );
    }

    #[rstest]
    #[case::kubeadm(&[node("n1", Distribution::Kubernetes, true, "")], "the cluster runs neither K3s nor RKE2, so it has no server token")]
    #[case::agents_only(&[node("a1", Distribution::Rke2, false, "")], "no server of the cluster has a Node")]
    #[case::empty(&[], "no server of the cluster has a Node")]
    fn a_cluster_without_servers_is_refused(#[case] nodes: &[ClusterNode], #[case] message: &str) {
        assert_eq!(flags(&[]).servers(nodes).unwrap_err().message, message);
    }

    #[test]
    fn an_address_has_to_name_each_server_once() {
        let nodes = [node("s1", Distribution::K3s, true, "10.0.0.1")];
        let error = flags(&["S1=10.0.0.1"]).servers(&nodes).unwrap_err();
        assert_eq!(
            (error.kind, error.hints),
            (Kind::Usage, vec!["the servers are s1".to_owned()])
        );
        let twice = flags(&["s1=10.0.0.1", "s1=10.0.0.2"]);
        for error in [twice.servers(&nodes).unwrap_err(), twice.named_servers().unwrap_err()] {
            assert_eq!(error.message, "--server-address names server \"s1\" twice");
        }
        assert_eq!(flags(&["s1=10.0.0.1"]).named_servers().unwrap()[0].name, "s1");
    }

    #[test]
    fn without_a_pin_nothing_is_sent() {
        let hash: CaHash = "a".repeat(64).parse().unwrap();
        assert_eq!(
            pin(None, None, Some("PEM"), false).unwrap(),
            Pin::Kubeconfig("PEM".to_owned())
        );
        for error in [pin(None, None, None, false), pin(None, None, Some("PEM"), true)].map(Result::unwrap_err) {
            assert!(
                error.kind == Kind::Usage && error.hints[0].contains("--ca-hash"),
                "{error:?}"
            );
        }
        let error = pin(None, None, Some("PEM"), true).unwrap_err();
        assert!(
            error.message.ends_with("the kubeconfig has the CA of Rancher"),
            "{error:?}"
        );
        for pin in [
            pin(Some(&hash), None, None, true),
            pin(None, Some(&hash), Some("PEM"), true),
        ] {
            assert_eq!(pin.unwrap(), Pin::Hash(hash.clone()));
        }
    }

    #[test]
    fn an_invalid_hash_is_not_repeated() {
        let token = format!("K10{}::server:secret", "a".repeat(64));
        let flags = ServerFlags {
            ca_hash: Some(token),
            ..flags(&[])
        };
        let error = flags.ca_hash().unwrap_err();
        assert!(error.message.starts_with("invalid value for --ca-hash: ") && !error.message.contains("secret"));
    }
}
