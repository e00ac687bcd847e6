//! Being a good kubectl citizen: what every plugin of this workspace needs and none should write again.
//!
//! This crate knows no product. A plugin's `main` calls [`app::run`] with a type that implements [`app::Plugin`]; from
//! there on everything goes through what this crate hands to it:
//!
//! - [`ui::Ui`] owns the streams: data to stdout, talk to stderr;
//! - [`connection::ConnectionFlags`] finds the API server as kubectl does and gives a [`connection::Server`];
//! - [`request`] reads and changes objects that hold credentials;
//! - [`error::Error`] is the only error that reaches a user, in kubectl's words, with an exit code;
//! - [`output`] and [`table`] print lists and objects as kubectl does.

pub mod access;
pub mod age;
pub mod app;
pub mod clock;
pub mod cluster_identity;
pub mod connection;
pub mod duration;
pub mod error;
pub mod output;
pub mod ownership;
pub mod redact;
pub mod request;
pub mod secret;
pub mod table;
pub mod ui;
