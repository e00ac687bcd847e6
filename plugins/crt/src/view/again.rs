//! The one command that goes on: as the user would have to type it, with the same contexts as now.

use std::fmt::Write as _;

use kubectl_core::app::GlobalFlags;
use rancher::ClusterId;

use crate::sides::DownstreamFlags;

/// What of the command line belongs to every later command too.
#[derive(Clone, Debug, Default)]
pub struct Again {
    flags: String,
}

impl Again {
    /// From the flags of this command.
    pub fn new(global: &GlobalFlags, downstream: &DownstreamFlags) -> Self {
        let connection = &global.connection;
        let kubeconfig = connection
            .kubeconfig
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned());
        let given = [
            ("--kubeconfig", kubeconfig),
            ("--context", connection.context.clone()),
            ("--downstream-context", downstream.downstream_context.clone()),
        ];
        let mut flags = String::new();
        for (flag, value) in given {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let _ = write!(flags, " {flag} {}", quoted(&value));
            }
        }
        Self { flags }
    }

    /// Goes on with a rotation.
    pub fn rotate(&self, cluster: &ClusterId) -> String {
        self.verb("rotate", cluster)
    }

    /// Undoes one.
    pub fn rollback(&self, cluster: &ClusterId) -> String {
        self.verb("rollback", cluster)
    }

    /// Shows where one stands.
    pub fn status(&self, cluster: &ClusterId) -> String {
        self.verb("status", cluster)
    }

    fn verb(&self, verb: &str, cluster: &ClusterId) -> String {
        format!("kubectl crt {verb} {cluster}{}", self.flags)
    }
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_pasted_as_it_stands() {
        let mut global = GlobalFlags::default();
        global.connection.context = Some("rancher prod".into());
        let downstream = DownstreamFlags {
            downstream_context: Some("it's-mine".into()),
        };
        let again = Again::new(&global, &downstream);
        let id: ClusterId = "c-x7k2p".parse().unwrap();
        assert_eq!(
            again.rotate(&id),
            r"kubectl crt rotate c-x7k2p --context 'rancher prod' --downstream-context 'it'\''s-mine'"
        );
        assert_eq!(
            Again::new(&GlobalFlags::default(), &DownstreamFlags::default()).rollback(&id),
            "kubectl crt rollback c-x7k2p"
        );
    }
}
