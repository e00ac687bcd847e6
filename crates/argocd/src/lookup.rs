//! Which Secret is a cluster's: adopted by its address, and never guessed where there are two.
//!
//! Argo CD does not refuse a second Secret for the same address. It then reads one and writes into any of the two, so
//! that a token may land in the wrong one (seen on Argo CD 3.5.1: in ten tries three crossed).

use std::fmt;

use crate::cluster_secret::ClusterSecret;
use crate::server::ServerUrl;

/// What a list of clusters has for an address.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// Nothing.
    Nothing,
    /// This one, which may be adopted.
    One(&'a ClusterSecret),
    /// More than one, or one whose address is spelled otherwise: a person must decide.
    Several(Vec<&'a ClusterSecret>),
}

/// Looks for an address. Argo CD compares it to the letter, so a Secret that leads to the same place by another spelling
/// is another cluster to it: it is not adopted, and not passed over.
pub fn by_server<'a>(clusters: &'a [ClusterSecret], server: &ServerUrl) -> Found<'a> {
    let places: Vec<&ClusterSecret> = clusters
        .iter()
        .filter(|cluster| cluster.server.same_place(server))
        .collect();
    match places.as_slice() {
        [] => Found::Nothing,
        [one] if one.server == *server => Found::One(one),
        _ => Found::Several(places),
    }
}

/// Secrets that get into each other's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// What they have in common.
    pub what: Common,
    /// The names of the Secrets.
    pub secrets: Vec<String>,
}

/// What two clusters must not have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Common {
    /// The place that the address leads to.
    Server(ServerUrl),
    /// What they are called: Applications that name it are refused by Argo CD, and ApplicationSets see only one.
    Name(String),
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = self.secrets.join(" and ");
        match &self.what {
            Common::Server(server) => write!(f, "Secrets {secrets} are both for {server}"),
            Common::Name(name) => write!(f, "Secrets {secrets} both call their cluster {name:?}"),
        }
    }
}

/// All duplicates of a list, by address first.
pub fn duplicates(clusters: &[ClusterSecret]) -> Vec<Duplicate> {
    let by_server = groups(clusters, |one, other| {
        !one.server.is_empty() && one.server.same_place(&other.server)
    });
    let by_name = groups(clusters, |one, other| {
        one.name == other.name && !one.server.same_place(&other.server)
    });
    let found = |what: fn(&ClusterSecret) -> Common, groups: Vec<Vec<&ClusterSecret>>| -> Vec<Duplicate> {
        let duplicate = |group: Vec<&ClusterSecret>| Duplicate {
            what: what(group[0]),
            secrets: group.iter().map(|secret| secret.object.name.clone()).collect(),
        };
        groups.into_iter().map(duplicate).collect()
    };
    let mut all = found(|secret| Common::Server(secret.server.clone()), by_server);
    all.extend(found(|secret| Common::Name(secret.name.clone()), by_name));
    all
}

/// Those that are alike, in groups of at least two.
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
