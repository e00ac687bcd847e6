//! What users live through with `kubectl bootstrap-token rotate`, on a real control plane.

mod cluster;
mod create;
mod extend;
mod generate;
mod help;
mod kubeadm;
mod kubeconfig;
mod leaks;
mod list;
mod output;
mod permissions;
mod rbac;
mod requests;
mod revoke;
mod rollback;
mod rotate;
mod rotation_fixture;
