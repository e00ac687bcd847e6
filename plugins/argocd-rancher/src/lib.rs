//! `kubectl argocd-rancher`: manages the Rancher API tokens that Argo CD uses.

mod address;
mod backup;
pub mod cli;
mod commands;
mod controller;
mod mark;
mod proof;
mod report;
pub mod rotation;
mod row;
mod sides;
