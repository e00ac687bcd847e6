//! What Rancher adds to Kubernetes, as a client of its API sees it.
//!
//! Clusters, their registration tokens, the agent on the downstream cluster, settings, and the public endpoints that accept
//! or reject a token. Each function reads or writes *one* object. Which of them a rotation changes, in which order and why, is
//! not decided here.
//!
//! All modules follow these rules:
//!
//! - Only the fields that are used are typed. A write is a patch of those, so other fields survive.
//! - Every write carries the uid and the resourceVersion of the object as it was [observed](object::Observed). It is rejected
//!   with a conflict if the object has changed since ([`Error::is_conflict`]). [`Write`] can make it a dry run.
//! - A credential is a [`Secret`](client::secret::Secret) from the moment a response is parsed. A response that cannot be
//!   parsed is reported by position, never by its text.
//! - An invalid value (a malformed time, a token that is not text) is left out and named in the object's `problems`: one
//!   malformed object does not hide the other 9,999.
//!
//! "Seen on Rancher 2.15.0" names the server on which a behaviour was observed.

pub mod agent;
pub mod api_token;
pub mod cluster;
mod cluster_id;
pub mod credential_name;
mod error;
pub mod harvester;
pub mod object;
pub mod probe;
pub mod provisioned;
pub mod proxy;
pub mod reach;
pub mod settings;
mod similar;
pub mod token;
pub mod token_storage;

pub use cluster::Cluster;
pub use cluster_id::{ClusterId, InvalidClusterId};
pub use error::{Candidate, Error, Result};
pub use object::{Observed, Problem, Write};
pub use token::RegistrationToken;
pub use token_storage::TokenStorage;
