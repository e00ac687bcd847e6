//! What this crate sends, to the letter, and what it makes of the answers of real servers and of broken ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod agent;
mod api_token;
mod api_token_proof;
mod cluster;
mod era;
mod names;
mod probe;
mod reach;
mod settings;
mod support;
mod token;
mod token_listing;
mod token_writes;
