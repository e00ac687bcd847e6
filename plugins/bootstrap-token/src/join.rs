//! Reads what decides whether a node can join with a token.

use std::time::Duration;

use bootstrap::{NewToken, Token, TokenId, Usage, cluster_info, rbac};
use cli::ui::Ui;
use client::error::Error;
use supervisor::Distribution;
use tokio::time::{Instant, sleep};

use crate::cluster::ClusterConnection;
use crate::endpoint;
use crate::report::join::{Authentication, Discovery, JoinInputs};

/// How long the signer may take to sign a new token. It was seen to take 6 to 70 ms (Kubernetes 1.36.3).
const SIGNED_WITHIN: Duration = Duration::from_secs(2);
/// Between two reads of the signature.
const PAUSE: Duration = Duration::from_millis(50);

/// What the results about an existing token follow from. `groups` are those of its user; `signing` is `None` if its Secret was not
/// read.
pub(crate) async fn inputs(
    cluster: &ClusterConnection,
    token: &Token,
    groups: &[String],
    authentication: Authentication,
    signing: Option<bool>,
) -> Result<JoinInputs, Error> {
    let (version, discovery, permissions) = futures::join!(
        cluster.version(),
        discovery(cluster, token),
        permissions(cluster, &token.id, groups)
    );
    Ok(JoinInputs {
        distribution: Distribution::of_version(&version?),
        authentication,
        signing,
        discovery,
        permissions,
    })
}

async fn permissions(cluster: &ClusterConnection, id: &TokenId, groups: &[String]) -> Result<[bool; 2], String> {
    let allowed = rbac::may_join(cluster.client(), id, groups).await;
    allowed.map_err(|error| Error::from(error).message)
}

async fn discovery(cluster: &ClusterConnection, token: &Token) -> Discovery {
    match cluster_info::read(cluster.client()).await {
        Ok(None) => Discovery::Missing,
        Ok(Some(info)) => {
            let ours = cluster.connection.authority();
            let same = endpoint::same_authority(info.authority.as_deref(), ours);
            Discovery::of(&info, token, same)
        }
        Err(error @ bootstrap::Error::InvalidClusterInfo(_)) => Discovery::Malformed(error.to_string()),
        Err(error) => Discovery::Unknown(Error::from(error).message),
    }
}

/// What the results about a new token follow from. What cannot be read counts as good: `create` needs no permission for it.
pub(crate) async fn inputs_of_new(
    new: &NewToken,
    distribution: Distribution,
    cluster: &ClusterConnection,
    ui: &Ui,
) -> JoinInputs {
    let is_for = |usage| new.usages.contains(&usage);
    let (authenticates, signs) = (is_for(Usage::Authentication), is_for(Usage::Signing));
    let mut inputs = JoinInputs {
        distribution,
        authentication: Authentication::Accepted,
        signing: Some(true),
        discovery: Discovery::Signed,
        permissions: Ok([true, true]),
    };
    if distribution.supervisor().is_some() {
        if !authenticates {
            inputs.authentication = Authentication::Rejected;
        }
        return inputs;
    }
    if signs {
        match signed(cluster, &new.token).await {
            Discovery::Unknown(reason) => ui.log(4, || format!("cannot read kube-public/cluster-info: {reason}")),
            found => inputs.discovery = found,
        }
    }
    // A token for signing only is for discovery: nodes then authenticate with another one.
    if authenticates {
        let groups: Vec<String> = new.groups.iter().map(ToString::to_string).collect();
        match permissions(cluster, &new.token.id, &groups).await {
            Err(reason) => ui.log(4, || {
                format!("whether nodes can join with the token is unknown: {reason}")
            }),
            found => inputs.permissions = found,
        }
    }
    inputs
}

/// What the signer has made of a new token.
async fn signed(cluster: &ClusterConnection, token: &Token) -> Discovery {
    let began = Instant::now();
    loop {
        let found = discovery(cluster, token).await;
        let may_be_signed = matches!(found, Discovery::Unsigned { .. } | Discovery::Stale);
        if !may_be_signed || began.elapsed() > SIGNED_WITHIN {
            return found;
        }
        sleep(PAUSE).await;
    }
}
