//! What users of `kubectl argocd-rancher` live through, on a real control plane with a Rancher that is stood in for.
//!
//! The plugin is run by the real kubectl, which finds it by its name.

mod add;
mod connection;
mod fixture;
mod leaks;
mod list;
mod refusals;
mod remove;
mod requests;
mod rollback;
mod rotate;
mod tokens;
mod verify;
