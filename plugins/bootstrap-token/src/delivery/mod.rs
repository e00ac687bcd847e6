//! Where a new token is delivered to: a key of a Secret, or a file.
//!
//! In both the token is bare or in a kubeconfig, and nothing around it is changed ([`content`]).

pub(crate) mod content;
pub(crate) mod file;
pub(crate) mod secret;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use client::secret::Secret;

use crate::rotation::observed::{Content, Id};
use crate::rotation::record::Place;

/// One delivery target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryTarget {
    /// A key of a Secret in the same cluster.
    Secret(secret::SecretKey),
    /// A file on this host; the path is absolute.
    File(PathBuf),
}

/// A text that names none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delivery target reads secret:NAMESPACE/NAME/KEY or file:PATH")]
pub(crate) struct InvalidDeliveryTarget;

impl DeliveryTarget {
    /// As it is journaled. A path is made absolute, since the run may be resumed in another directory.
    pub(crate) fn place(&self) -> Place {
        let host = matches!(self, Self::File(_)).then(host);
        Place {
            at: self.to_string(),
            host,
        }
    }

    /// That of a place; `None` where its file is on another host.
    ///
    /// # Errors
    /// A place that names none.
    pub(crate) fn of(place: &Place) -> Result<Option<Self>, InvalidDeliveryTarget> {
        let here = place.host.as_ref().is_none_or(|name| *name == host());
        place.at.parse().map(|target| here.then_some(target))
    }

    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Secret(_) => None,
        }
    }
}

impl FromStr for DeliveryTarget {
    type Err = InvalidDeliveryTarget;

    fn from_str(text: &str) -> Result<Self, InvalidDeliveryTarget> {
        if let Some(key) = text.strip_prefix("secret:") {
            return key.parse().map(Self::Secret);
        }
        let path = text.strip_prefix("file:").filter(|path| !path.is_empty());
        let path = path.and_then(|path| std::path::absolute(path).ok());
        path.map(Self::File).ok_or(InvalidDeliveryTarget)
    }
}

impl fmt::Display for DeliveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(key) => write!(f, "secret:{key}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// The name of this host.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What a delivery holds, by the fingerprint of the token in it, or of all of it where there is none.
pub(crate) fn content_of(content: &Secret) -> Content {
    let token = content::token_in(content);
    Content {
        id: token.as_ref().map(|token| Id(token.id.to_string())),
        value: token.map_or_else(|| content.fingerprint(), |token| token.fingerprint()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("secret:machines/join/token")]
    #[case("file:/etc/kubernetes/bootstrap-kubelet.conf")]
    fn a_target_is_read_as_it_is_shown(#[case] text: &str) {
        let target: DeliveryTarget = text.parse().unwrap();
        assert_eq!(target.to_string(), text);
        assert_eq!(DeliveryTarget::of(&target.place()), Ok(Some(target)));
    }

    #[rstest]
    #[case("")]
    #[case("file:")]
    #[case("join/token")]
    #[case("secret:join/token")]
    #[case("secret:machines//token")]
    #[case("secret:machines/join/token/more")]
    fn what_names_no_target_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<DeliveryTarget>(), Err(InvalidDeliveryTarget));
    }

    #[test]
    fn a_file_of_another_host_is_not_here() {
        let place = Place {
            at: "file:/etc/token".to_owned(),
            host: Some("certainly-another-host".to_owned()),
        };
        assert_eq!(DeliveryTarget::of(&place), Ok(None));
    }
}
