//! The fake against what was seen on real servers (v1.36.3+k3s1): each behavior is one test. Without Kubernetes.

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
