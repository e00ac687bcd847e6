//! The roles in `docs/rbac`, as an administrator applies them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::Shell;

/// Roles and bindings of one plugin, as YAML.
#[derive(Clone, Debug)]
pub struct Roles(Vec<String>);

/// A role without one of its rules.
#[derive(Debug)]
pub struct Reduced {
    /// The whole role.
    pub role: Roles,
    /// The role without the rule.
    pub reduced: Roles,
    /// The resource of the rule.
    pub resource: String,
}

impl Roles {
    /// Those of a plugin, with the words in capitals replaced.
    pub fn read(plugin: &str, words: &[(&str, &str)]) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/rbac/{plugin}.yaml"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let replaced = words.iter().fold(text, |text, (word, value)| text.replace(word, value));
        Ok(Self(replaced.split("---\n").skip(1).map(str::to_owned).collect()))
    }

    /// Those with all of these labels, such as `access: read`.
    #[must_use]
    pub fn labelled(&self, labels: &[&str]) -> Self {
        let has = |role: &&String, label: &&str| role.contains(&format!("kubectl-rotation.github.io/{label}\n"));
        let found = self.0.iter().filter(|role| labels.iter().all(|label| has(role, label)));
        Self(found.cloned().collect())
    }

    /// Applies them, as the admin of a shell.
    pub async fn apply(&self, shell: &Shell, flags: &[&str]) -> Result<()> {
        ensure!(!self.0.is_empty(), "there are no such roles");
        let args = flags.iter().copied().chain(["apply", "-f", "-"]);
        shell.kubectl(args).stdin(self.0.join("---\n")).run().await?.expect(0)?;
        Ok(())
    }

    /// Each role without each rule that a command needs, unless the rule is only for a case that `other_cases` names.
    pub fn without_each_rule(&self, command: &str, other_cases: &[&str]) -> Result<Vec<Reduced>> {
        let mut all = Vec::new();
        for role in &self.0 {
            let Some((head, rules)) = role.split_once("rules:\n") else {
                continue;
            };
            let rules: Vec<String> = rules
                .split("# For ")
                .skip(1)
                .map(|rule| format!("# For {rule}"))
                .collect();
            for (index, rule) in rules.iter().enumerate() {
                let commands = rule.lines().next().unwrap_or_default();
                let commands = commands.trim_start_matches("# For ").trim_end_matches('.');
                if !commands.split(", ").any(|name| name == command)
                    || other_cases.iter().any(|case| rule.contains(case))
                {
                    continue;
                }
                let mut others = rules.clone();
                others.remove(index);
                let others = if others.is_empty() {
                    "rules: []\n".to_owned()
                } else {
                    format!("rules:\n{}", others.concat())
                };
                let resource = rule
                    .split("resources: [\"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next());
                all.push(Reduced {
                    role: Self(vec![role.clone()]),
                    reduced: Self(vec![format!("{head}{others}")]),
                    resource: resource.context("a rule without a resource")?.to_owned(),
                });
            }
        }
        ensure!(!all.is_empty(), "no rule is for {command}");
        Ok(all)
    }
}
