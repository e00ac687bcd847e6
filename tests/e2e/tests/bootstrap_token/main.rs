//! End-to-end tests of `kubectl bootstrap-token`, on a real control plane with real kubelets, and kubeadm as a reference.

mod closed_output;
mod cluster;
mod create;
mod extend;
mod generate;
mod help;
mod join;
mod kubeadm;
mod kubeconfig;
mod leaks;
mod list;
mod output;
mod permissions;
mod rbac;
mod requests;
mod revoke;
mod rights;
mod rollback;
mod rotate;
mod rotation_fixture;
