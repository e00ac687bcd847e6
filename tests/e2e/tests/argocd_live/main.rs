//! `kubectl argocd-rancher` with the real Argo CD as a referee: its controller uses the tokens, its server writes into the
//! same Secrets, its command line says what a Secret should be.

mod bench;
mod fleet;
mod generated;
mod listing;
mod meddling;
mod rotating;
mod swapping;
mod waiting;
