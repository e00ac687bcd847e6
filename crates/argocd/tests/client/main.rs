//! The exact requests of this crate, and how it parses the objects of Argo CD.

#![allow(clippy::unwrap_used, reason = "a test that fails must show where")]

mod application;
mod cluster_secret;
mod config;
mod connection;
mod lookup;
mod rights;
mod server;
mod support;
