//! End-to-end tests of `kubectl bootstrap-token server-token`, on a real API server and fake servers of K3s and RKE2.

mod agent_token;
mod api_away;
mod cluster;
mod join;
mod kill;
mod leaks;
mod network;
mod planes;
mod pods;
mod recover;
mod refusals;
mod requests;
mod rights;
mod rollback;
mod rotate;
mod rotation_fixture;
mod snapshots;
mod status;
mod verify;
