//! A well-behaved Kubernetes client: it finds API servers as kubectl does, sends bounded and retried requests, and reports
//! errors in kubectl's words.
//!
//! It knows no product, no terminal and no command line:
//!
//! - [`connection::ConnectionOptions`] finds the API server and the identity, and gives a [`connection::Server`];
//! - [`request`] reads and changes objects that hold credentials;
//! - [`secret`] holds credentials that cannot be printed;
//! - [`error::Error`] is the only error that reaches a user;
//! - [`console::Console`] receives what is to be shown while a request is sent: warnings and the request log.

pub mod access;
pub mod clock;
pub mod cluster_identity;
pub mod connection;
pub mod console;
pub mod duration;
pub mod error;
pub mod ownership;
pub mod redact;
pub mod request;
pub mod sanitize;
pub mod secret;
