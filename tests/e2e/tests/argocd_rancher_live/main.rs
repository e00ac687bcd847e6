//! End-to-end tests of `kubectl argocd-rancher` with the real Argo CD: its controller uses the tokens, its server writes
//! the same Secrets, and its command line prints the expected Secret.

mod add;
mod blocked_sync;
mod fixture;
mod fleet;
mod list;
mod rotate;
mod stale_writers;
mod token_swap;
