//! Which kubeconfig contexts lead to which of several clusters: `--downstream-context CLUSTER=CONTEXT`, and `--match-contexts`, which
//! finds them by the CA of the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use cli::app::GlobalFlags;
use client::cluster_identity::{self, CaComparison, SYSTEM_NAMESPACE, same_ca};
use client::connection::{ContextCluster, Environment};
use client::error::Error;
use rancher::cluster::{Cluster, ClusterId};
use rancher::reach::Reach;

use crate::connections::Management;

/// How long a context may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The flags for the contexts of several downstream clusters.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct ContextFlags {
    /// Kubeconfig context of a downstream cluster that does not go through Rancher; can be repeated. For one cluster, CONTEXT alone is enough
    #[arg(long, value_name = "CLUSTER=CONTEXT", help_heading = "Connection options")]
    downstream_context: Vec<String>,

    /// Find the contexts of the clusters in the kubeconfig, by the CA of each cluster
    #[arg(long, help_heading = "Connection options")]
    match_contexts: bool,
}

/// The context of each cluster.
pub(crate) type Contexts = BTreeMap<ClusterId, String>;

impl ContextFlags {
    /// Those of the command line. `selected`: how many clusters the command line names, those that were not found included.
    pub(crate) async fn typed(
        &self,
        management: &Management,
        clusters: &[Cluster],
        selected: usize,
    ) -> Result<Contexts, Error> {
        let mut contexts = Contexts::new();
        for typed in self.downstream_context.iter().filter(|typed| !typed.is_empty()) {
            let (cluster, context) = match (typed.split_once('='), clusters) {
                (Some((name, context)), _) => (selected_cluster(name, management, clusters).await?, context),
                (None, [only]) if selected == 1 => (&only.id, typed.as_str()),
                (None, []) => continue,
                (None, _) => {
                    let message =
                        format!("--downstream-context {typed} leads to one cluster, but {selected} are selected");
                    return Err(
                        Error::usage(message).hint("pass --downstream-context CLUSTER=CONTEXT for each cluster")
                    );
                }
            };
            if let Some(other) = contexts.insert(cluster.clone(), context.to_owned()) {
                let message = format!("cluster {cluster} has two contexts: {other} and {context}");
                return Err(Error::usage(message).hint("pass --downstream-context once for each cluster"));
            }
        }
        Ok(contexts)
    }

    /// The contexts of the kubeconfig among which those of the clusters are found. Empty without `--match-contexts`.
    pub(crate) fn candidates(
        &self,
        global: &GlobalFlags,
        environment: &Environment,
    ) -> Result<Vec<ContextCluster>, Error> {
        if self.match_contexts {
            global.connection.contexts(environment)
        } else {
            Ok(Vec::new())
        }
    }
}

async fn selected_cluster<'c>(
    name: &str,
    management: &Management,
    clusters: &'c [Cluster],
) -> Result<&'c ClusterId, Error> {
    let by_id = |id: &str| {
        clusters
            .iter()
            .map(|cluster| &cluster.id)
            .find(|known| known.as_str() == id)
    };
    if let Some(id) = by_id(name) {
        return Ok(id);
    }
    let found = management.cluster(name).await?;
    by_id(found.id.as_str()).ok_or_else(|| {
        Error::usage(format!(
            "--downstream-context is for cluster {name}, which is not selected"
        ))
        .hint("name the cluster too, or omit its context")
    })
}

/// The contexts that have the CA of this cluster and do not go through Rancher, in the order of the kubeconfig.
pub(crate) fn with_ca<'c>(candidates: &'c [ContextCluster], ca: &str) -> Vec<&'c str> {
    let is_direct = |candidate: &&ContextCluster| !matches!(Reach::of(&candidate.server), Reach::Proxy { .. });
    let has_ca = |candidate: &&ContextCluster| same_ca(&candidate.authority, ca) == CaComparison::Same;
    let matching = candidates.iter().filter(is_direct).filter(has_ca);
    matching.map(|candidate| candidate.name.as_str()).collect()
}

/// The first of these contexts that answers and publishes this CA.
pub(crate) async fn first_proven<'c>(
    names: &[&'c str],
    ca: &str,
    global: &GlobalFlags,
    environment: &Environment,
) -> Option<&'c str> {
    let asked = names.iter().map(async |name| {
        let connection = global.connection.for_context(name).load(environment);
        let server = connection.and_then(|connection| connection.connect()).ok()?;
        let published = cluster_identity::root_ca(&server.client, SYSTEM_NAMESPACE);
        let published = tokio::time::timeout(TIMEOUT, published).await.ok()?.ok()??;
        (same_ca(&published, ca) == CaComparison::Same).then_some(*name)
    });
    futures::future::join_all(asked).await.into_iter().flatten().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([]).unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    fn context(name: &str, server: &str, authority: &str) -> ContextCluster {
        ContextCluster {
            name: name.to_owned(),
            server: server.parse().unwrap(),
            authority: authority.to_owned(),
        }
    }

    #[test]
    fn contexts_are_matched_by_the_ca_and_never_through_rancher() {
        let (one, other) = (&ca(), &ca());
        let mut all: Vec<ContextCluster> = (0..200)
            .map(|number| context(&format!("other-{number}"), "https://10.0.0.9:6443", other))
            .collect();
        all.insert(7, context("first", "https://10.0.0.1:6443", one));
        all.insert(
            99,
            context("rancher", "https://rancher.example.com/k8s/clusters/c-x7k2p", one),
        );
        all.push(context("both", "https://10.0.0.1:6443", &format!("{one}{other}")));
        all.push(context("second", "https://10.0.0.2:6443", one));
        assert_eq!(with_ca(&all, one), ["first", "second"]);
        assert_eq!(with_ca(&all, "no certificate"), [""; 0]);
    }
}
