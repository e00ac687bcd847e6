//! The commands in hints. Each runs as printed: it has the connection flags of this command.

use cli::app::GlobalFlags;
use cli::rotation::Commands;
use client::sanitize::shell_word;

use crate::connections::RancherFlags;

/// Stands for a context that this command was not given.
const CONTEXT: &str = "CONTEXT_OF_RANCHER";

/// The commands that hints print.
#[derive(Clone, Debug)]
pub(crate) struct Hints {
    plugin: Commands,
    namespace: String,
    has_rancher: bool,
}

impl Hints {
    /// With the connection flags of this command. `namespace`: that of Argo CD.
    pub(crate) fn new(rancher: &RancherFlags, global: &GlobalFlags, namespace: &str) -> Self {
        Self {
            plugin: rancher.commands("", global),
            namespace: namespace.to_owned(),
            has_rancher: rancher.rancher_context.is_some() || rancher.rancher_url.is_some(),
        }
    }

    /// A command of this plugin. `target`: a cluster, or empty.
    pub(crate) fn command(&self, verb: &str, target: &str) -> String {
        format!("`{}`", self.plugin.on(verb, target))
    }

    /// The same for a command that requires Rancher.
    pub(crate) fn with_rancher(&self, verb: &str, target: &str) -> String {
        let plugin = self.plugin.clone();
        let plugin = if self.has_rancher {
            plugin
        } else {
            plugin.with("--rancher-context", Some(CONTEXT))
        };
        format!("`{}`", plugin.on(verb, target))
    }

    /// The same with one more flag.
    pub(crate) fn with_flag(&self, verb: &str, target: &str, flag: &str) -> String {
        let flagged = Self {
            plugin: self.plugin.clone().switched_on(flag),
            ..self.clone()
        };
        flagged.with_rancher(verb, target)
    }

    /// For a Secret that Argo CD cannot use.
    pub(crate) fn repair(&self, secret: &str) -> String {
        let words = format!("edit secret {} -n {}", shell_word(secret), shell_word(&self.namespace));
        let edit = self.plugin.kubectl(&words);
        format!("correct it with `{edit}`, or delete the Secret and add the cluster again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A debug build parses each of them.
    #[test]
    fn every_command_is_valid_with_every_way_to_rancher() {
        let (by_context, by_url) = (
            Some("my rancher".to_owned()),
            Some("https://rancher.example.com".to_owned()),
        );
        let ways = [
            RancherFlags::default(),
            RancherFlags {
                rancher_context: by_context,
                ..RancherFlags::default()
            },
            RancherFlags {
                rancher_url: by_url.clone(),
                rancher_token_stdin: true,
                rancher_certificate_authority: Some("/ca.crt".into()),
                ..RancherFlags::default()
            },
            RancherFlags {
                rancher_url: by_url.clone(),
                rancher_token_file: Some("/my token".into()),
                ..RancherFlags::default()
            },
            RancherFlags {
                rancher_url: by_url,
                rancher_token_secret: Some("argocd/rancher/token".into()),
                ..RancherFlags::default()
            },
        ];
        for rancher in ways {
            let hints = Hints::new(&rancher, &GlobalFlags::default(), "argocd");
            for verb in ["verify", "status", "add", "rotate", "rollback", "remove"] {
                assert!(hints.with_rancher(verb, "one").starts_with("`kubectl argocd-rancher "));
            }
            let list = hints.command("list", "");
            assert_eq!(list.contains("--rancher-"), hints.has_rancher, "{list}");
            let flagged = [("rotate", "--unscoped"), ("remove", crate::leftovers::FLAG)];
            for (verb, flag) in flagged {
                assert!(hints.with_flag(verb, "one", flag).contains(flag));
            }
        }
    }

    #[test]
    fn a_command_has_the_connection_flags_of_this_one() {
        let mut global = GlobalFlags::default();
        global.connection.context = Some("hub".into());
        global.connection.namespace = Some("argo".into());
        let mut rancher = RancherFlags::default();
        let without = Hints::new(&rancher, &global, "argo");
        assert_eq!(
            without.with_rancher("add", "c-x7k2p"),
            "`kubectl argocd-rancher add c-x7k2p --context hub --namespace argo --rancher-context CONTEXT_OF_RANCHER`"
        );
        rancher.rancher_context = Some("my rancher".into());
        let hints = Hints::new(&rancher, &global, "argo");
        assert_eq!(
            hints.with_flag("remove", "c-x7k2p", "--leftovers"),
            "`kubectl argocd-rancher remove c-x7k2p --context hub --namespace argo --rancher-context 'my rancher' --leftovers`"
        );
        assert_eq!(
            hints.repair("one"),
            "correct it with `kubectl edit secret one -n argo --context hub`, or delete the Secret and add the cluster again"
        );
    }
}
