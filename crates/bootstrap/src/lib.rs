//! Bootstrap tokens: the Secrets that Kubernetes reads them from, and the rules by which it accepts them.
//!
//! The API server stores any Secret of type `bootstrap.kubernetes.io/token`. If it later rejects the token, the node gets a bare
//! `401 Unauthorized`. So this crate repeats the rules of the authenticator, the signer and the token cleaner:
//! [`TokenSecret::flaws`] lists what makes a token invalid, and a [`NewToken`] is valid by its types.
//!
//! - Credentials are [`Secret`](client::secret::Secret)s from the moment that a response is parsed.
//! - Each change is conditional on the uid and resourceVersion that were read. A mismatch is a conflict.
//! - Keys of a Secret that this crate does not know survive a change.
//!
//! The rules are those of kubernetes/cluster-bootstrap v0.36.3 and of
//! `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go` in kubernetes/kubernetes v1.36.3.

pub mod cluster_info;
mod error;
pub mod expiration;
pub mod probe;
pub mod rbac;
pub mod secret;
pub mod token;
pub mod tokens;
mod validation;

pub use client::request::Write;
pub use error::{Error, Result};
pub use expiration::Expiration;
pub use probe::ProbeResult;
pub use secret::{NewToken, TokenSecret};
pub use token::{Token, TokenId};
pub use validation::{BOOTSTRAPPERS, Flaw, Group, GroupFlaw, KUBEADM_GROUP, NotAUsage, Usage};
