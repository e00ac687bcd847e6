//! What users of `kubectl argocd-rancher` live through, on a real control plane with a Rancher that is stood in for.
//!
//! The plugin is run by the real kubectl, which finds it by its name.

mod adding;
mod adopting;
mod bench;
mod killed;
mod leaks;
mod listing;
mod proving;
mod removing;
mod requests;
mod rotating;
mod rotation_killed;
mod rotation_stopped;
mod safety;
mod ways_to_rancher;
