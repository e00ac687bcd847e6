//! Argo CD, as a client of the cluster that it runs in sees it.
//!
//! The Secrets that tell it of clusters, the Applications that are deployed there, what it says of its connections, and
//! the rights that it needs at the other end. Which of them a rotation changes, and why, is not known here.
//!
//! - A Secret is read as Argo CD reads it and written as Argo CD writes it; what neither of us knows survives.
//! - Every change names the object as it was observed, uid and resourceVersion, and is refused with a conflict
//!   ([`Error::is_conflict`]) if it has changed since.
//! - A credential is a [`Secret`](client::secret::Secret), and an answer that cannot be parsed is reported by its
//!   position, never by its text.
//!
//! What goes wrong at an API server is an [`Error`]. "Argo CD 3.5.1" and the like in the docs name the release
//! whose source or behaviour a statement was taken from.

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
