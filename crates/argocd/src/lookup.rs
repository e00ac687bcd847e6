//! Finds the Secret of a cluster by its URL, and duplicates.
//!
//! Argo CD accepts a second Secret with the same URL. It then reads one of them and writes to either, so that a token may end up in
//! the wrong Secret (in three of ten attempts on Argo CD 3.5.1).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
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

/// All duplicates: first those by URL, then those by name. A name counts where the URLs differ.
pub fn duplicates(clusters: &[ClusterSecret]) -> Vec<Duplicate> {
    let by_server = groups(clusters, |cluster| {
        (!cluster.server.is_empty()).then(|| cluster.server.place())
    });
    let mut by_name = groups(clusters, |cluster| Some(cluster.name.clone()));
    for group in &mut by_name {
        let mut places = HashSet::new();
        group.retain(|cluster| places.insert(cluster.server.place()));
    }
    by_name.retain(|group| group.len() > 1);
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

/// Clusters with the same key, in groups of at least two.
fn groups(clusters: &[ClusterSecret], key: fn(&ClusterSecret) -> Option<String>) -> Vec<Vec<&ClusterSecret>> {
    let (mut groups, mut known) = (Vec::<Vec<&ClusterSecret>>::new(), HashMap::<String, usize>::new());
    for cluster in clusters {
        let Some(key) = key(cluster) else { continue };
        match known.entry(key) {
            Entry::Occupied(at) => groups[*at.get()].push(cluster),
            Entry::Vacant(at) => {
                at.insert(groups.len());
                groups.push(vec![cluster]);
            }
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}
