//! The exact requests of this crate over TLS, and how it reads the responses of real servers and malformed ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue panics where it stopped")]

mod cluster;
mod pin;
mod put;
mod reads;
mod secrecy;
mod server;
