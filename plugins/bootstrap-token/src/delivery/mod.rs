//! Where a new token is delivered to: a key of a Secret, or a file.
//!
//! Both contain the token either bare or in a kubeconfig. Only the token is replaced ([`content`]).

mod attributes;
pub(crate) mod content;
pub(crate) mod file;
pub(crate) mod secret;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use client::secret::Secret;

use crate::rotation::observed::{Content, Id};
use crate::rotation::record::Place;

/// The value of `--deliver`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryTarget {
    /// A key of a Secret in the same cluster.
    Secret(secret::SecretKey),
    /// A file on this host, by its absolute path.
    File(PathBuf),
}

/// A text that is not a delivery target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delivery target must have the form secret:NAMESPACE/NAME/KEY or file:PATH")]
pub(crate) struct InvalidDeliveryTarget;

impl DeliveryTarget {
    /// The target in the journal.
    pub(crate) fn place(&self) -> Place {
        let host = matches!(self, Self::File(_)).then(host);
        Place {
            at: self.to_string(),
            host,
        }
    }

    /// The target of a place in the journal. `None`: a file on another host.
    pub(crate) fn of(place: &Place) -> Result<Option<Self>, InvalidDeliveryTarget> {
        let here = place.host.as_ref().is_none_or(|name| *name == host());
        place.at.parse().map(|target| here.then_some(target))
    }

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
        // The run may be resumed in another directory.
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

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The content of a delivery: the fingerprint of the token in it, or of everything if there is no token.
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
    fn a_target_is_parsed_as_it_is_displayed(#[case] text: &str) {
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
    fn other_texts_are_rejected(#[case] text: &str) {
        assert_eq!(text.parse::<DeliveryTarget>(), Err(InvalidDeliveryTarget));
    }

    #[test]
    fn a_file_on_another_host_is_no_target() {
        let place = Place {
            at: "file:/etc/token".to_owned(),
            host: Some("certainly-another-host".to_owned()),
        };
        assert_eq!(DeliveryTarget::of(&place), Ok(None));
    }
}
