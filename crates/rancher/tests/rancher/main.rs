//! The exact requests of this crate, and how it reads the responses of real servers and malformed ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue panics where it stopped")]

mod agent;
mod api_token;
mod api_token_proof;
mod cluster;
mod names;
mod probe;
mod reach;
mod settings;
mod support;
mod token;
mod token_listing;
mod token_storage;
mod token_writes;
