//! A script as it is sent to a node: its variables, the parts that it needs, and the end of its result.
//!
//! All of it is one brace group, which a shell runs only when it has read its end. So a script that is cut off does nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use client::secret::Secret;
use rand::RngExt as _;
use zeroize::Zeroizing;

const PRELUDE: &str = include_str!("script/prelude.sh");
const LOCATE: &str = include_str!("script/locate.sh");
const READ: &str = include_str!("script/read.sh");
const LOG: &str = include_str!("script/log.sh");
const SWAP: &str = include_str!("script/swap.sh");
const EDIT: &str = include_str!("script/edit.sh");
const TOKEN: &str = include_str!("script/token.sh");
const SERVICE: &str = include_str!("script/service.sh");

/// What a script does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeOperation {
    Read,
    Status,
    Edit,
    Token,
    Service,
}

impl NodeOperation {
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Read => &[PRELUDE, LOCATE, READ, LOG],
            Self::Status => &[PRELUDE, LOG],
            Self::Edit => &[PRELUDE, LOCATE, SWAP, EDIT],
            Self::Token => &[PRELUDE, LOCATE, SWAP, TOKEN],
            Self::Service => &[PRELUDE, SERVICE],
        }
    }
}

/// A script with its values. It may contain a secret, so it travels on standard input or in a Secret, and is never printed.
pub struct Script {
    text: Zeroizing<String>,
    secrets: Vec<Secret>,
    nonce: String,
}

impl Script {
    pub(crate) fn new(operation: NodeOperation, variables: &[(&str, &str)], secret: Option<&Secret>) -> Self {
        let nonce = format!("{:016x}", rand::rng().random::<u64>());
        let parts = operation.parts();
        let size = parts.iter().map(|part| part.len()).sum::<usize>() + 8192;
        // Large enough for all of it: a string that grows leaves parts of a secret behind.
        let mut text = Zeroizing::new(String::with_capacity(size));
        text.push_str("{\nset +x\n");
        // A variable that the login has exported would be in the environment of every command.
        for name in assigned(parts) {
            let _ = writeln!(text, "unset {name}");
        }
        push_variable(&mut text, "nonce", &nonce);
        push_variable(&mut text, "secret", secret.map_or("", Secret::expose));
        for (name, value) in variables {
            push_variable(&mut text, name, value);
        }
        for part in parts {
            text.push_str(part);
        }
        text.push_str("emit end\nexit 0\n}\n");
        Self {
            text,
            secrets: secret.into_iter().cloned().collect(),
            nonce,
        }
    }

    /// Its text, for standard input.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The secrets in it, to be hidden wherever the node repeats them.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// What each line of its result begins with.
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// The variables that scripts set, by `name=`, `for name` or `read -r name`, and those that are set before.
fn assigned(parts: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::from(["nonce", "secret"].map(str::to_owned));
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    for text in parts {
        for (at, _) in text.match_indices('=') {
            let name = text[..at].rsplit(|c| !is_name(c)).next().unwrap_or_default();
            names.insert(name.to_owned());
        }
        for keyword in ["for ", "read -r "] {
            for (at, _) in text.match_indices(keyword) {
                let rest = &text[at + keyword.len()..];
                names.insert(rest.split(|c| !is_name(c)).next().unwrap_or_default().to_owned());
            }
        }
    }
    names.remove("");
    names
}

/// `name='value'`. The value is taken literally, whatever it contains.
fn push_variable(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str("='");
    for (index, part) in value.split('\'').enumerate() {
        if index > 0 {
            text.push_str(r"'\''");
        }
        text.push_str(part);
    }
    text.push_str("'\n");
}
