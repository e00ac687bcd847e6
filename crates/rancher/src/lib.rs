//! Rancher, as a client of its Kubernetes API sees it.
//!
//! Clusters, their registration tokens in both eras, the agent on the downstream side, settings, and the public
//! endpoints that tell whether a token is alive. Everything here reads or writes *one* thing: which of them a rotation
//! changes, in which order and why, is not known here.
//!
//! What all modules have in common:
//!
//! - Only the fields that are used are typed. A write is a patch of those, so what this crate does not know survives.
//! - Every write names the object as it was [observed](object::Observed), uid and resourceVersion, and is refused with
//!   a conflict if it has changed since ([`Error::is_conflict`]). It is sent as a dry run if [`Write`] says so.
//! - A credential is a [`Secret`](client::secret::Secret) from the moment that an answer is parsed. An answer that
//!   cannot be parsed is reported by its position, never by its text.
//! - A value that is there but makes no sense (a time that is no time, a token that is no text) is left out and named in
//!   the object's `problems`: one broken object does not hide the other 9,999.
//!
//! "Seen on Rancher 2.15.0" and the like in the docs name the server on which a behaviour was observed.

pub mod agent;
pub mod api_token;
pub mod cluster;
mod cluster_id;
pub mod credential_name;
pub mod era;
mod error;
pub mod object;
pub mod probe;
pub mod proxy;
pub mod reach;
pub mod settings;
pub mod token;

pub use cluster::Cluster;
pub use cluster_id::{ClusterId, NotAClusterId};
pub use era::Era;
pub use error::{Candidate, Error, Result};
pub use object::{Observed, Problem, Write};
pub use token::RegistrationToken;
