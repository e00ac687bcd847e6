//! `kubectl argocd-rancher`: the tokens by which Argo CD reaches clusters through Rancher.

pub mod address;
pub mod cli;
pub mod commands;
pub mod controller;
pub mod mark;
pub mod parked;
pub mod proof;
pub mod report;
pub mod rotation;
pub mod row;
pub mod sides;
