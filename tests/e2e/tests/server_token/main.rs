//! End-to-end tests of `kubectl bootstrap-token server-token`, on a real API server and fake servers of K3s and RKE2.

mod cluster;
mod kill;
mod recover;
mod refusals;
mod rollback;
mod rotate;
mod rotation_fixture;
mod status;
mod verify;
