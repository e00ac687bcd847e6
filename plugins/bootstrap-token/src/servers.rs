//! The API servers behind one address, asked one by one as far as the user names them.
//!
//! Each API server learns of a token, and of its end, by a watch of its own, and remembers by itself for ten seconds that it
//! has let a token in. What one of them says is not said by the others, and a load balancer does not tell whom it asked.
//!
//! A token is sent only to servers that the user has named, in the kubeconfig or with `--api-server`. The cluster publishes
//! the addresses of its servers too (EndpointSlices of Service `default/kubernetes`), but whoever may write there could have
//! tokens sent to himself: of these only the number is used.

use std::fmt;

use bootstrap::{Answer, Token};
use client::cluster_identity;
use client::connection::Connection;
use client::error::Error;
use futures::future::try_join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use url::Url;

use crate::proof;

/// How many connections a token is sent over to the kubeconfig's address: there may be a load balancer.
const LOOKS: usize = 3;
/// The Service that all API servers of a cluster are behind
/// (kubernetes/kubernetes `pkg/controlplane/reconcilers/instancecount.go` and `lease.go`, 1.36).
const SERVICE: (&str, &str) = ("default", "kubernetes.io/service-name=kubernetes");

/// The flag about them.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerFlags {
    /// The address of one API server, where the kubeconfig's leads to several of them, such as https://10.0.0.1:6443; it is
    /// asked too. Can be repeated, once for each
    #[arg(long = "api-server", value_name = "URL", value_parser = address)]
    pub named: Vec<Url>,
}

fn address(text: &str) -> Result<Url, &'static str> {
    let url: Url = text.parse().map_err(|_| "it is no URL")?;
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url.scheme() == "https" && url.host_str().is_some() && bare {
        Ok(url)
    } else {
        Err("an API server's address reads https://HOST:PORT")
    }
}

/// Those that are asked.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// The kubeconfig's address.
    front: Connection,
    named: Vec<Connection>,
}

/// What one of them said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Its address.
    pub server: String,
    /// Its answer.
    pub answer: Answer,
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, answer } = self;
        match answer {
            Answer::Accepted { .. } => write!(f, "{server} accepts it"),
            Answer::Refused => write!(f, "{server} refuses it"),
            Answer::Unknown(why) => write!(f, "{server} does not say: {why}"),
        }
    }
}

/// What all of them say together: what each says, or that nothing can be said.
pub(crate) fn together(heard: &[Heard]) -> Answer {
    let all = |is: fn(&Answer) -> bool| heard.iter().all(|heard| is(&heard.answer));
    if let Some(first) = heard.first()
        && (all(Answer::is_accepted) || all(|answer| *answer == Answer::Refused))
    {
        return first.answer.clone();
    }
    Answer::Unknown(in_words(heard))
}

/// What each of them says, once.
fn in_words(heard: &[Heard]) -> String {
    let mut said: Vec<String> = heard.iter().map(ToString::to_string).collect();
    said.sort();
    said.dedup();
    said.join("; ")
}

impl Servers {
    /// Those behind a connection, and those that are named. They must show certificates that the kubeconfig trusts.
    pub(crate) fn new(connection: &Connection, flags: &ServerFlags) -> Self {
        Self {
            front: connection.clone(),
            named: flags.named.iter().map(|url| connection.at(url.clone())).collect(),
        }
    }

    /// Asks all of them at once, each over connections of its own.
    ///
    /// # Errors
    /// A token is never sent over plain http. What a server says, or that it does not answer, is no error.
    pub(crate) async fn look(&self, token: &Token) -> Result<Vec<Heard>, Error> {
        let front = std::iter::repeat_n(&self.front, LOOKS);
        let looks = front.chain(&self.named).map(async |connection| {
            let answer = proof::look(connection, token).await?;
            let server = connection.server().as_str().trim_end_matches('/').to_owned();
            Ok(Heard { server, answer })
        });
        try_join_all(looks).await
    }

    /// The first of those that are named which belongs to another cluster, by the uid of its namespace kube-system. Whoever
    /// may not read that, or gets no answer, is not told: such a server is asked about the token all the same.
    ///
    /// # Errors
    /// No client can be built.
    pub(crate) async fn of_another_cluster(&self, client: &kube::Client) -> Result<Option<String>, Error> {
        if self.named.is_empty() {
            return Ok(None);
        }
        let Ok(here) = cluster_identity::uid(client).await else {
            return Ok(None);
        };
        for connection in &self.named {
            let there = cluster_identity::uid(&connection.connect()?.client).await;
            if there.is_ok_and(|there| there != here) {
                return Ok(Some(connection.server().as_str().trim_end_matches('/').to_owned()));
            }
        }
        Ok(None)
    }

    /// Whether there may be API servers that [`Self::look`] has not asked, by what the cluster publishes; also where that
    /// may not be read. One that publishes none counts as one.
    pub(crate) async fn may_be_more(&self, client: &kube::Client) -> bool {
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), SERVICE.0);
        match slices.list(&ListParams::default().labels(SERVICE.1)).await {
            Ok(slices) => published(&slices.items) > self.named.len().max(1),
            Err(error) => {
                tracing::debug!(%error, "how many API servers there are is not known");
                true
            }
        }
    }
}

/// How many addresses there are.
fn published(slices: &[EndpointSlice]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let mut addresses: Vec<&String> = endpoints.flat_map(|endpoint| &endpoint.addresses).collect();
    addresses.sort();
    addresses.dedup();
    addresses.len()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("https://10.0.0.1:6443", true)]
    #[case("https://[fd00::1]:6443/", true)]
    #[case("http://10.0.0.1:6443", false)]
    #[case("https://me:secret@10.0.0.1:6443", false)]
    #[case("10.0.0.1:6443", false)]
    #[case("", false)]
    fn an_address_is_that_of_one_server_over_tls(#[case] text: &str, #[case] is_one: bool) {
        assert_eq!(address(text).is_ok(), is_one);
    }

    #[test]
    fn together_they_say_what_each_of_them_says_or_nothing() {
        let heard = |server: &str, answer| Heard {
            server: server.to_owned(),
            answer,
        };
        let accepted = || Answer::Accepted {
            user: None,
            groups: Vec::new(),
        };
        let (yes, no) = (heard("https://a", accepted()), heard("https://b", Answer::Refused));
        let unknown = heard("https://c", Answer::Unknown("no route".to_owned()));
        assert_eq!(together(&[yes.clone(), yes.clone()]), accepted());
        assert_eq!(together(&[no.clone(), no.clone()]), Answer::Refused);
        let told = |heard: &[Heard]| match together(heard) {
            Answer::Unknown(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            told(&[no.clone(), yes.clone(), no.clone()]),
            "https://a accepts it; https://b refuses it"
        );
        assert_eq!(
            told(&[yes, unknown]),
            "https://a accepts it; https://c does not say: no route"
        );
    }

    #[test]
    fn an_address_that_is_published_twice_is_one_server() {
        let slice = |addresses: &[&str]| {
            let endpoints: Vec<_> = addresses
                .iter()
                .map(|address| json!({ "addresses": [address] }))
                .collect();
            let slice = json!({ "metadata": {}, "addressType": "IPv4", "endpoints": endpoints, "ports": [] });
            serde_json::from_value::<EndpointSlice>(slice).unwrap()
        };
        assert_eq!(published(&[]), 0);
        assert_eq!(published(&[slice(&["10.0.0.1", "10.0.0.2"]), slice(&["10.0.0.1"])]), 2);
    }
}
