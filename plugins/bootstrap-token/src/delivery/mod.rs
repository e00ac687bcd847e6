//! Where a new token is delivered to: a key of a Secret, or a file.
//!
//! In both the token stands alone or in a kubeconfig, and nothing around it is touched ([`content`]).

pub(crate) mod content;
pub(crate) mod file;
pub(crate) mod secret;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use client::secret::Secret;

use crate::rotation::view::{Held, Id, Place};

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A key of a Secret in the same cluster.
    Secret(secret::Key),
    /// A file on this host; the path is absolute.
    File(PathBuf),
}

/// A text that names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a target reads secret:NAMESPACE/NAME/KEY or file:PATH")]
pub(crate) struct NotATarget;

impl Target {
    /// As the journal knows it. A path is made absolute, since whoever goes on may be in another directory.
    pub(crate) fn place(&self) -> Place {
        let host = matches!(self, Self::File(_)).then(host);
        Place {
            at: self.to_string(),
            host,
        }
    }

    /// The target of a place; `None` where its file is on another host.
    ///
    /// # Errors
    /// A place that names none.
    pub(crate) fn of(place: &Place) -> Result<Option<Self>, NotATarget> {
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

impl FromStr for Target {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        if let Some(key) = text.strip_prefix("secret:") {
            return key.parse().map(Self::Secret);
        }
        let path = text.strip_prefix("file:").filter(|path| !path.is_empty());
        let path = path.and_then(|path| std::path::absolute(path).ok());
        path.map(Self::File).ok_or(NotATarget)
    }
}

impl fmt::Display for Target {
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

/// What is in a target, by the fingerprint of the token in it, or of all of it where it holds none.
pub(crate) fn held(content: &Secret) -> Held {
    let token = content::token_in(content);
    Held {
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
        let target: Target = text.parse().unwrap();
        assert_eq!(target.to_string(), text);
        assert_eq!(Target::of(&target.place()), Ok(Some(target)));
    }

    #[rstest]
    #[case("")]
    #[case("file:")]
    #[case("join/token")]
    #[case("secret:join/token")]
    #[case("secret:machines//token")]
    #[case("secret:machines/join/token/more")]
    fn what_names_no_target_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<Target>(), Err(NotATarget));
    }

    #[test]
    fn a_file_of_another_host_is_not_here() {
        let place = Place {
            at: "file:/etc/token".to_owned(),
            host: Some("certainly-another-host".to_owned()),
        };
        assert_eq!(Target::of(&place), Ok(None));
    }
}
