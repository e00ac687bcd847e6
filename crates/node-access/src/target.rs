//! Which node a script runs on.

use std::fmt;

use supervisor::Host;

/// The longest name of a Node.
const LONGEST: usize = 253;

/// A node by its name and its address. Both were parsed, so neither can be an option or a second word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTarget {
    name: String,
    address: Host,
}

/// A name that no Node has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a Node")]
pub struct InvalidNodeName(String);

impl NodeTarget {
    /// The name is checked as Kubernetes does (a DNS subdomain).
    pub fn new(name: &str, address: Host) -> Result<Self, InvalidNodeName> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let is_label = |label: &str| {
            !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
        };
        if name.len() > LONGEST || !name.split('.').all(is_label) {
            return Err(InvalidNodeName(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            address,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address as ssh takes it: an IPv6 address has no brackets.
    pub fn address(&self) -> String {
        self.address.to_string().trim_matches(['[', ']']).to_owned()
    }
}

impl fmt::Display for NodeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
