//! What users live through with `kubectl bootstrap-token rotate`, on a real control plane.

#[path = "../bootstrap/cluster.rs"]
#[allow(dead_code, reason = "the stories of single verbs use the rest of it")]
mod cluster;
mod elsewhere;
mod forged;
mod interrupted;
mod killed;
mod others;
mod place;
mod requests;
mod rotating;
mod several_servers;
mod signer;
