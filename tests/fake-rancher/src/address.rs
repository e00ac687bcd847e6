//! The URLs of Rancher for agents, and the checks of an agent before it connects. Nothing here is pushed to an agent:
//! it has the URL and the checksum of the CA that were in its pod when it started.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::token::hex;
use crate::world::{World, variable};

/// All URLs that were ever used, and whether agents can reach Rancher at each.
pub(crate) struct Addresses(watch::Sender<BTreeMap<String, bool>>);

fn bare(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

impl Addresses {
    /// Only this one is reachable.
    pub(crate) fn new(url: &str) -> Self {
        Self(watch::Sender::new([(bare(url), true)].into()))
    }

    /// Sets whether agents can reach Rancher at this URL. If not, the tunnels to it break.
    pub(crate) fn set(&self, url: &str, reachable: bool) {
        self.0.send_modify(|all| {
            all.insert(bare(url), reachable);
        });
    }

    pub(crate) fn reach(&self, url: &str) -> bool {
        self.0.borrow().get(&bare(url)).is_some_and(|reachable| *reachable)
    }

    /// Returns when the address cannot be reached.
    pub(crate) async fn lost(&self, url: &str) {
        let url = bare(url);
        // The sender is in `self`: waiting cannot fail.
        let _ = self
            .0
            .subscribe()
            .wait_for(|all| !all.get(&url).is_some_and(|reachable| *reachable))
            .await;
    }

    /// Changes with every change.
    pub(crate) fn changed(&self) -> watch::Receiver<BTreeMap<String, bool>> {
        self.0.subscribe()
    }
}

/// The server in the environment of an agent's pod.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    server: String,
    pub(crate) checksum: String,
    strict: bool,
}

impl Environment {
    pub(crate) fn of(pod_spec: &Value) -> Self {
        let text = |name: &str| variable(pod_spec, name).unwrap_or_default();
        Self {
            server: text("CATTLE_SERVER"),
            checksum: text("CATTLE_CA_CHECKSUM"),
            strict: text("STRICT_VERIFY") == "true",
        }
    }
}

/// The certificates that a started agent trusts.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Trust(pub(crate) String);

impl World {
    /// The address that Rancher gives to agents when it renders their manifest.
    pub(crate) fn server_url(&self) -> String {
        bare(&self.setting("server-url"))
    }

    /// The checks of the container before the agent itself (`package/run.sh` of github.com/rancher/rancher; its
    /// messages were seen on Rancher 2.15.0). If they fail, it exits and is restarted.
    pub(crate) fn start_check(&self, environment: &Environment) -> Result<Trust, String> {
        let Environment {
            server,
            checksum,
            strict,
        } = environment;
        if !self.addresses.reach(server) {
            return Err(format!("ERROR: {server}/ping is not accessible"));
        }
        let cacerts = self.setting("cacerts");
        if !checksum.is_empty() {
            if cacerts.is_empty() {
                return Err("CATTLE_CA_CHECKSUM is set but there is no CA certificate configured".to_owned());
            }
            // One line break is added to the value whether or not it ends with one; Rancher adds one only where there is none.
            let served = hex(&Sha256::digest(format!("{cacerts}\n")));
            if served != *checksum {
                return Err(format!(
                    "Configured cacerts checksum ({served}) does not match given --ca-checksum ({checksum})"
                ));
            }
        }
        if *strict && cacerts.is_empty() {
            return Err("Strict CA verification is enabled but encountered error finding root CA".to_owned());
        }
        Ok(Trust(cacerts))
    }

    /// Whether an agent that trusts these certificates can connect to this address.
    pub(crate) fn connect_check(&self, url: &str, trust: &Trust) -> Result<(), &'static str> {
        if !self.addresses.reach(url) {
            return Err("no such server");
        }
        if !trust.0.contains(self.served_ca.trim()) {
            return Err("x509: certificate signed by unknown authority");
        }
        Ok(())
    }
}
