//! What users live through with bootstrap tokens, one file for each story, on a real control plane with real kubelets and
//! kubeadm for referees.

mod cluster;
mod creating;
mod joining;
mod kubeadm;
mod leaks;
mod refused_tokens;
mod revoking;
mod roles;
mod standing;
mod words;
