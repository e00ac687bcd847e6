//! The checks of a survey that a user may override by name, with `--force=CHECK`.

use std::fmt;
use std::str::FromStr;

/// One check. What has no name here cannot be overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Rancher says that the agent is connected, and its Deployment is rolled out.
    Agent,
    /// Rancher has no redeploy of the agent pending.
    Redeploy,
    /// The agent that connected last did so with the token of the Secret that the Deployment names.
    LastAgent,
    /// Era S: `system` has no previous token but the one that the agent runs with.
    ThirdToken,
    /// The context of the downstream side is shown to lead to this cluster.
    Context,
    /// No GitOps tool or controller owns the agent's Deployment, its Secret or the registration token.
    Owner,
    /// The agent runs with the address and CA that Rancher would give it.
    Address,
    /// Nobody else holds the lock.
    Lock,
    /// The journal can be read.
    Journal,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Agent,
        Self::Redeploy,
        Self::LastAgent,
        Self::ThirdToken,
        Self::Context,
        Self::Owner,
        Self::Address,
        Self::Lock,
        Self::Journal,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Redeploy => "redeploy",
            Self::LastAgent => "last-agent",
            Self::ThirdToken => "third-token",
            Self::Context => "context",
            Self::Owner => "owner",
            Self::Address => "address",
            Self::Lock => "lock",
            Self::Journal => "journal",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no check has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no check is called {asked:?}; there are: {}", Check::ALL.map(Check::name).join(", "))]
pub struct NoSuchCheck {
    asked: String,
}

impl FromStr for Check {
    type Err = NoSuchCheck;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|check| check.name() == text);
        named.ok_or_else(|| NoSuchCheck { asked: text.to_owned() })
    }
}
