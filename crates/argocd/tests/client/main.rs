//! What this crate sends, to the letter, and what it makes of what Argo CD and people have written.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod application;
mod cluster_secret;
mod config;
mod connection;
mod lookup;
mod rights;
mod server;
mod support;
