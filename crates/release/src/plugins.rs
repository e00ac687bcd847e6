//! The one table of what this repository ships: `cargo xtask dist` builds by it, and the manifests are written from it.

/// A plugin, as krew presents it.
#[derive(Debug)]
pub struct Plugin {
    /// What is typed after `kubectl`.
    pub name: &'static str,
    /// At most 50 characters, for the table that `kubectl krew search` prints.
    pub short_description: &'static str,
    /// Lines of at most 80 characters; what it is for, neither examples nor flags.
    pub description: &'static str,
}

/// All of them.
pub const PLUGINS: &[Plugin] = &[
    Plugin {
        name: "crt",
        short_description: "Rotate Rancher's cluster registration tokens",
        description: "\
A cluster registration token is what the agent of a Rancher cluster shows when
it opens its tunnel; who has it can pose as the agent. This plugin lists these
tokens and changes them: it makes a new one, proves by a real connection that
the agent runs with it, and only then revokes the old one. It may be killed at
any moment: the same command goes on, or the start is restored.
",
    },
    Plugin {
        name: "bootstrap-token",
        short_description: "Make, explain and rotate node bootstrap tokens",
        description: "\
A bootstrap token is what a machine shows to the API server to become a node.
This plugin makes them by the rules of the server that will check them, lists
them without their secrets, says why one cannot work, and revokes them until
they are really refused. It changes them, too, where they are kept: the new one
is proven and delivered before the old one ends.
",
    },
    Plugin {
        name: "argocd-rancher",
        short_description: "Rotate the Rancher tokens that Argo CD deploys by",
        description: "\
Argo CD reaches a cluster of Rancher through Rancher, by an API token that
stands in a Secret; when the token ends, all deployments to the cluster fail.
This plugin gives Argo CD a token for each cluster alone and changes them: it
mints a new one, proves that Argo CD can work with it, puts it in place, and
only then revokes the old one. It also names dead tokens and duplicates.
",
    },
];

impl Plugin {
    /// The package that cargo builds it from.
    pub fn package(&self) -> String {
        format!("kubectl-{}", self.name)
    }

    /// The file that kubectl looks for: a dash within a word of a command is an underscore in the name of its plugin's
    /// file (kubectl 1.36 pkg/cmd/plugin.go).
    pub fn binary(&self) -> String {
        format!("kubectl-{}", self.name.replace('-', "_"))
    }

    /// Shown once after the installation: what krew v0.5.0 cannot do. The name is the one that kubectl looks for (1.36,
    /// pkg/cmd/plugin_completion.go).
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
