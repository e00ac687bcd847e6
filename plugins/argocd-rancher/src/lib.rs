//! `kubectl argocd-rancher`: manages the Rancher API tokens that Argo CD uses.

mod address;
mod backup;
mod candidates;
pub mod cli;
mod commands;
mod connections;
mod controller;
#[cfg(test)]
mod fixtures;
mod hints;
mod inventory;
mod leftovers;
mod mark;
mod remedy;
mod report;
#[doc(hidden)]
pub mod rights;
pub mod rotation;
mod row;
mod token_check;
mod token_facts;
