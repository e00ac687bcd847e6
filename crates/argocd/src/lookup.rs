//! Finds the Secret of a cluster by its URL, and duplicates.
//!
//! Argo CD accepts a second Secret with the same URL. It then reads one of them and writes to either, so that a token may end up in
//! the wrong Secret (in three of ten attempts on Argo CD 3.5.1).

use std::fmt;

use crate::cluster_secret::ClusterSecret;
use crate::server::ServerUrl;

/// The cluster Secrets with a URL.
#[derive(Clone, Debug)]
pub enum ServerMatch<'a> {
    /// None.
    NotFound,
    /// This one.
    One(&'a ClusterSecret),
    /// Argo CD confuses these: more than one, or one with another spelling of the URL.
    Ambiguous(Vec<&'a ClusterSecret>),
    /// More than one, with this URL and different queries: different clusters to Argo CD.
    Several(Vec<&'a ClusterSecret>),
}

/// Finds the cluster Secret with this URL, or else with this URL and a query. Argo CD compares URLs as text, so another spelling of the
/// same URL is another cluster to it.
pub fn by_server<'a>(clusters: &'a [ClusterSecret], server: &ServerUrl) -> ServerMatch<'a> {
    let same = clusters.iter().filter(|cluster| cluster.server.same_place(server));
    let same: Vec<&ClusterSecret> = same.collect();
    match same.as_slice() {
        [] => {
            let there = clusters.iter().filter(|cluster| cluster.server.same_endpoint(server));
            match there.collect::<Vec<_>>() {
                none if none.is_empty() => ServerMatch::NotFound,
                several if several.len() > 1 => ServerMatch::Several(several),
                one => ServerMatch::One(one[0]),
            }
        }
        [one] if one.server == *server => ServerMatch::One(one),
        _ => ServerMatch::Ambiguous(same),
    }
}

/// Secrets that Argo CD confuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// What they have in common.
    pub what: SharedField,
    /// The names of the Secrets.
    pub secrets: Vec<String>,
}

/// What two clusters must not have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedField {
    /// The URL, in any spelling.
    Server(ServerUrl),
    /// The name: Argo CD rejects Applications that use it, and ApplicationSets see only one of the clusters.
    Name(String),
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = self.secrets.join(" and ");
        match &self.what {
            SharedField::Server(server) => write!(f, "Secrets {secrets} are both for {server}"),
            SharedField::Name(name) => write!(f, "Secrets {secrets} both have the cluster name {name:?}"),
        }
    }
}

/// All duplicates: first those by URL, then those by name.
pub fn duplicates(clusters: &[ClusterSecret]) -> Vec<Duplicate> {
    let by_server = groups(clusters, |one, other| {
        !one.server.is_empty() && one.server.same_place(&other.server)
    });
    let by_name = groups(clusters, |one, other| {
        one.name == other.name && !one.server.same_place(&other.server)
    });
    let duplicate = |what, group: Vec<&ClusterSecret>| Duplicate {
        what,
        secrets: group.iter().map(|secret| secret.object.name.clone()).collect(),
    };
    let by_server = by_server
        .into_iter()
        .map(|group| duplicate(SharedField::Server(group[0].server.clone()), group));
    let by_name = by_name
        .into_iter()
        .map(|group| duplicate(SharedField::Name(group[0].name.clone()), group));
    by_server.chain(by_name).collect()
}

/// Clusters that are alike, in groups of at least two.
fn groups(clusters: &[ClusterSecret], alike: fn(&ClusterSecret, &ClusterSecret) -> bool) -> Vec<Vec<&ClusterSecret>> {
    let mut groups: Vec<Vec<&ClusterSecret>> = Vec::new();
    for cluster in clusters {
        match groups.iter_mut().find(|group| alike(group[0], cluster)) {
            Some(group) => group.push(cluster),
            None => groups.push(vec![cluster]),
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}
