//! `kubectl argocd-rancher`: the tokens by which Argo CD reaches clusters through Rancher.

mod address;
pub mod cli;
mod commands;
#[allow(unreachable_pub, reason = "its items were marked when the module was public")]
mod controller;
mod mark;
mod parked;
mod proof;
mod report;
pub mod rotation;
mod row;
mod sides;
