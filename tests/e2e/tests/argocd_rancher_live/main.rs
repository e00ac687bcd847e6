//! `kubectl argocd-rancher` with the real Argo CD as a referee: its controller uses the tokens, its server writes into the
//! same Secrets, its command line says what a Secret should be.

mod add;
mod blocked_sync;
mod fixture;
mod fleet;
mod list;
mod rotate;
mod stale_writers;
mod token_swap;
