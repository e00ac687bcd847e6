//! End-to-end tests of `kubectl argocd-rancher`, on a real control plane with the fake Rancher and without Argo CD.

mod add;
mod connection;
mod fixture;
mod leaks;
mod leftovers;
mod list;
mod refusals;
mod remove;
mod requests;
mod rights;
mod rollback;
mod rotate;
mod tokens;
mod verify;
