//! Bootstrap tokens, as Kubernetes' authenticator, signer and cleaner see them, from the client's side.
//!
//! A bootstrap token is a Secret in `kube-system`, and that Secret is the only truth about it. The API server stores
//! anything in one, and says later, to the node, no more than `401 Unauthorized`. So the rules of the three parts of
//! Kubernetes that read such a Secret stand here once more: [`judge::why_not`] says why a token cannot work, and
//! [`secret::NewToken`] cannot hold one that would not.
//!
//! - A credential is a [`Secret`](client::secret::Secret) from the moment that an answer is parsed.
//! - Every change names the uid and the resourceVersion that were seen, and is refused with a conflict otherwise.
//! - What this crate does not know in a Secret survives a change.
//!
//! The rules are those of kubernetes/cluster-bootstrap v0.36.3 and of
//! `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go` of kubernetes/kubernetes v1.36.3; what they were seen to
//! do was seen on Kubernetes 1.36.3.

pub mod ask;
pub mod cluster_info;
mod error;
pub mod expiration;
pub mod judge;
pub mod rbac;
pub mod secret;
pub mod token;
pub mod tokens;

pub use ask::Answer;
pub use client::request::Write;
pub use error::{Error, Result};
pub use expiration::Expiration;
pub use judge::Flaw;
pub use secret::{NewToken, TokenSecret};
pub use token::{Token, TokenId};
