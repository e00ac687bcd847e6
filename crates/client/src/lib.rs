//! A well-behaved Kubernetes client: it finds API servers as kubectl does, sends bounded and retried requests, and reports
//! errors in kubectl's words.
//!
//! It does not depend on a product, a terminal or a command line:
//!
//! - [`connection::ConnectionOptions`] determines the API server and the identity, and returns a
//!   [`connection::Server`];
//! - [`request`] reads and changes objects that contain credentials;
//! - [`secret`] contains credentials that cannot be printed;
//! - [`error::Error`] is the only error that is printed;
//! - [`console::Console`] receives the messages of requests: warnings and the request log.

pub mod access;
pub mod clock;
pub mod cluster_identity;
pub mod connection;
pub mod console;
pub mod duration;
pub mod error;
pub mod ownership;
pub mod permission;
pub mod redact;
pub mod request;
pub mod sanitize;
pub mod secret;
pub mod yaml;
