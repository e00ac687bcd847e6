//! Many clusters in one Argo CD, and the state of their tokens.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::future::try_join_all;

use crate::fixture::Fixture;

/// Registers clusters, and adds them to Argo CD with one command.
pub(crate) async fn fleet(name: &str, size: usize) -> Result<Vec<Fixture>> {
    let names: Vec<String> = (1..=size).map(|number| format!("{name}-{number}")).collect();
    let fleet = try_join_all(names.iter().map(|name| Fixture::begin(name))).await?;
    let ids = fleet.iter().map(Fixture::id);
    let add: Vec<&str> = ["add"].into_iter().chain(ids).collect();
    fleet[0].run(&add).run().await?.expect(0)?;
    Ok(fleet)
}

/// Their URLs in the cluster Secrets.
pub(crate) fn servers(fleet: &[Fixture]) -> Vec<String> {
    fleet.iter().map(Fixture::server).collect()
}

/// The names of the tokens that Argo CD has for them.
pub(crate) async fn in_place(fleet: &[Fixture]) -> Result<BTreeSet<String>> {
    let tokens = try_join_all(fleet.iter().map(Fixture::token_in_place)).await?;
    Ok(tokens.into_iter().map(|token| token.name).collect())
}

/// The names of the valid tokens for them.
pub(crate) async fn valid(fleet: &[Fixture]) -> Result<BTreeSet<String>> {
    let ids: BTreeSet<&str> = fleet.iter().map(Fixture::id).collect();
    let all = fleet[0].base.rancher.tokens().await?;
    let ours = all.iter().filter(|token| {
        let cluster = token["clusterId"].as_str();
        token["valid"] == true && cluster.is_some_and(|cluster| ids.contains(cluster))
    });
    Ok(ours
        .filter_map(|token| token["name"].as_str().map(str::to_owned))
        .collect())
}
