//! Compares the fake with what was seen on real servers (v1.36.3+k3s1), one test for each behavior. No Kubernetes is needed.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may its helpers")]

mod access;
mod agents;
mod answers;
mod cluster;
mod encryption;
mod kills;
mod new_tokens;
mod restarts;
mod rounds;
mod snapshots;
