//! `kubectl argocd-rancher`: the tokens by which Argo CD reaches clusters through Rancher.

pub mod actor;
pub mod cli;
pub mod cmd;
pub mod mark;
pub mod parked;
pub mod proof;
pub mod rotation;
pub mod row;
pub mod sides;
pub mod view;
