//! The plugins that this repository ships: the table for `cargo xtask dist` and for the krew manifests.

/// A plugin, as krew presents it.
#[derive(Debug)]
pub struct Plugin {
    /// The command after `kubectl`.
    pub name: &'static str,
    /// At most 50 characters, for the table that `kubectl krew search` prints.
    pub short_description: &'static str,
    /// The purpose, without examples and flags, in lines of at most 80 characters.
    pub description: &'static str,
}

/// All of them.
pub const PLUGINS: &[Plugin] = &[
    Plugin {
        name: "crt",
        short_description: "Rotate Rancher's cluster registration tokens",
        description: "\
The agent of a Rancher cluster authenticates with a cluster registration token.
An attacker who has the token can impersonate the agent. This plugin lists the
tokens and rotates them: it creates a new token, verifies with a real connection
that the agent uses it, and only then revokes the old one. If it is killed, run
the same command to resume, or `rollback` to restore the original state. It
also brings back agents that have lost their token.
",
    },
    Plugin {
        name: "bootstrap-token",
        short_description: "Create, check and rotate node bootstrap tokens",
        description: "\
A machine joins a cluster with a bootstrap token. This plugin creates tokens
by the rules of the API server, lists them without their secrets, explains
why a token is invalid, and revokes tokens until they are rejected. It also
rotates a token where nodes read it: the new token is proven and delivered
before the old one is revoked. On K3s and RKE2 it rotates the server token and
the agent token, one server at a time, and says which token restores a snapshot.
",
    },
    Plugin {
        name: "argocd-rancher",
        short_description: "Rotate the Rancher API tokens that Argo CD uses",
        description: "\
Argo CD reaches a cluster of Rancher through Rancher, with an API token from a
Secret. When the token expires, all deployments to the cluster fail. This plugin
gives each cluster a token of its own and rotates the tokens: it creates a new
one, verifies that Argo CD can use it, updates the Secret, and only then revokes
the old one. It also lists invalid tokens and duplicates.
",
    },
];

impl Plugin {
    /// The cargo package.
    pub fn package(&self) -> String {
        format!("kubectl-{}", self.name)
    }

    /// The file that kubectl looks for: a dash within a word of a command is an underscore in the name of its plugin's
    /// file (kubectl 1.36 pkg/cmd/plugin.go).
    pub fn binary(&self) -> String {
        format!("kubectl-{}", self.name.replace('-', "_"))
    }

    /// krew shows it after the installation: krew v0.5.0 does not install completion. The file name is the one that
    /// kubectl looks for (1.36, pkg/cmd/plugin_completion.go).
    pub fn caveats(&self) -> String {
        let file = format!("~/.local/bin/{}", self.binary().replacen('-', "_complete-", 1));
        format!(
            "krew does not install completion. For it:\n  \
             kubectl {} completion > {file}\n  chmod +x {file}\n",
            self.name
        )
    }

    /// Its page.
    pub fn homepage(&self) -> String {
        format!("{}/blob/main/docs/{}.md", env!("CARGO_PKG_REPOSITORY"), self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_plugin_keeps_the_rules_of_the_index() {
        for plugin in PLUGINS {
            let Plugin {
                name,
                short_description,
                description,
            } = plugin;
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name}");
            assert!(
                short_description.len() <= 50 && !short_description.ends_with('.'),
                "{name}"
            );
            assert!(
                description.ends_with('\n') && description.lines().all(|line| line.len() <= 80),
                "{name}"
            );
        }
    }

    #[test]
    fn a_dash_in_a_name_is_an_underscore_in_its_files() {
        let plugin = Plugin {
            name: "two-words",
            short_description: "",
            description: "",
        };
        assert_eq!(plugin.package(), "kubectl-two-words");
        assert_eq!(plugin.binary(), "kubectl-two_words");
        let caveats = plugin.caveats();
        let command = "kubectl two-words completion > ~/.local/bin/kubectl_complete-two_words\n";
        assert!(caveats.contains(command), "{caveats}");
    }

    #[test]
    fn every_plugin_has_its_package_and_its_page() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let there = |path: String| assert!(root.join(&path).is_file(), "{path}");
        for plugin in PLUGINS {
            there(format!("plugins/{}/Cargo.toml", plugin.name));
            there(format!("docs/{}.md", plugin.name));
        }
    }
}
