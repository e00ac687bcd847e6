//! A client for the objects of Argo CD: its cluster Secrets, its Applications, the connection state of its clusters, and the
//! permissions that it needs there.
//!
//! - A Secret is read and written as Argo CD does. Unknown fields are kept.
//! - Every change has the uid and resourceVersion of the object that was observed. If it has changed since, the result is a conflict
//!   ([`Error::is_conflict`]).
//! - A credential is a [`Secret`](client::secret::Secret). The error for an invalid response has a position, never its text.
//!
//! A release in the docs, such as "Argo CD 3.5.1", is the one whose source or behaviour was examined.

pub mod application;
pub mod cluster_secret;
pub mod config;
pub mod connection;
pub mod lookup;
pub mod rights;
mod server;

pub use application::Application;
pub use client::request::Error;
pub use cluster_secret::{ClusterSecret, NewClusterSecret};
pub use config::ClusterConfig;
pub use server::{NoHost, ServerUrl, secret_name};
