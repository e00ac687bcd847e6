//! `kubectl argocd-rancher`: manages the Rancher API tokens that Argo CD uses.

mod address;
mod backup;
pub mod cli;
mod commands;
mod connections;
mod controller;
#[cfg(test)]
mod fixtures;
mod mark;
mod report;
pub mod rotation;
mod row;
mod token_check;
