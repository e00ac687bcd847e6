//! What a user may override by name, with `--force=CHECK`.

use std::fmt;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// One check. What has no name here cannot be overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// No other program looks after the token.
    Owner,
    /// Nobody else holds the lock.
    Lock,
    /// The journal can be read.
    Journal,
    /// The host of the target can be worked on.
    Target,
    /// The kubeconfig in the target leads to this cluster.
    Cluster,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Lock, Self::Journal, Self::Target, Self::Cluster];
    /// Those that a rotation under way can meet.
    pub const OF_A_RUN: [Self; 4] = [Self::Lock, Self::Journal, Self::Target, Self::Cluster];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Lock => "lock",
            Self::Journal => "journal",
            Self::Target => "target",
            Self::Cluster => "cluster",
        }
    }

    /// Reads the names of these, and of no other.
    pub fn parser(these: impl IntoIterator<Item = Self>) -> impl TypedValueParser<Value = Self> {
        let names = these.into_iter().map(Self::name);
        PossibleValuesParser::new(names).try_map(|name| name.parse::<Self>())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no check has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no check is called {0:?}")]
pub struct NoSuchCheck(String);

impl FromStr for Check {
    type Err = NoSuchCheck;

    fn from_str(text: &str) -> Result<Self, NoSuchCheck> {
        let named = Self::ALL.into_iter().find(|check| check.name() == text);
        named.ok_or_else(|| NoSuchCheck(text.to_owned()))
    }
}
