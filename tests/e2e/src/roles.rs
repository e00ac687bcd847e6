//! The roles in `docs/rbac`, as an administrator applies them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::{CommandOutput, Shell, until};

/// Roles and bindings of one plugin, as YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(Vec<String>);

/// A role without one of its rules.
struct Reduced {
    role: Roles,
    without: Roles,
    /// The resource of the rule.
    resource: String,
}

/// What a command prints without some of the optional rules, and not with them.
#[derive(Clone, Copy, Debug)]
pub struct Unseen<'a> {
    /// The rules: a resource, and a part of the comment.
    pub rules: &'a [(&'a str, &'a str)],
    /// The command.
    pub args: &'a [&'a str],
    /// The exit code without the rules.
    pub code: i32,
    /// What is printed.
    pub text: &'a str,
}

/// Repeats a command until its output is as expected, since the API server learns of a role a moment later.
pub async fn run_until(
    command: impl AsyncFn() -> Result<CommandOutput>,
    is_expected: impl Fn(&CommandOutput) -> bool,
) -> Result<()> {
    let mut last = String::new();
    let done = until("the expected output", async || {
        let output = command().await?;
        last = output.to_string();
        Ok(is_expected(&output).then_some(()))
    });
    let done = done.await;
    done.with_context(|| last)
}

/// Repeats a command until it succeeds.
pub async fn succeeds(command: impl AsyncFn() -> Result<CommandOutput>) -> Result<()> {
    run_until(command, |output| output.code() == Some(0)).await
}

/// Makes a user a member of cluster `local`: without that, Rancher answers 403 with an empty body, whatever RBAC grants.
pub async fn make_member_of_local(user: &str, admin: &Shell, flags: &[&str]) -> Result<()> {
    let name = format!("local-{user}");
    let role = [
        "create",
        "clusterrole",
        &name,
        "--verb=get",
        "--resource=clusters.management.cattle.io",
    ];
    let role = role.into_iter().chain(["--resource-name=local"]);
    admin
        .kubectl(flags.iter().copied().chain(role))
        .run()
        .await?
        .expect(0)?;
    let (of_role, of_user) = (format!("--clusterrole={name}"), format!("--user={user}"));
    let binding = ["create", "clusterrolebinding", &name, &of_role, &of_user];
    admin
        .kubectl(flags.iter().copied().chain(binding))
        .run()
        .await?
        .expect(0)?;
    Ok(())
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

    /// Leaves out each rule of a command, one after the other: without it, `run` is refused and names the resource. Rules only
    /// for the cases in `other_cases` stay.
    pub async fn are_needed(
        &self,
        (command, other_cases): (&str, &[&str]),
        (admin, flags): (&Shell, &[&str]),
        run: impl AsyncFn() -> Result<CommandOutput>,
    ) -> Result<()> {
        for Reduced {
            role,
            without,
            resource,
        } in self.without_each_rule(command, other_cases)?
        {
            without.apply(admin, flags).await?;
            let is_refusal =
                |output: &CommandOutput| output.code() == Some(1) && output.stderr.to_lowercase().contains(&resource);
            let refused = run_until(&run, is_refusal).await;
            refused.with_context(|| format!("without {resource}"))?;
            role.apply(admin, flags).await?;
        }
        Ok(())
    }

    /// Leaves out optional rules, as each case names them: the command ends as expected, and says what it does not know. Together
    /// the cases name all consequences in the comments, except those in `others`, which are tested elsewhere or cannot be seen.
    pub async fn are_optional(
        &self,
        cases: &[Unseen<'_>],
        others: &[&str],
        (admin, flags): (&Shell, &[&str]),
        run: impl AsyncFn(&[&str]) -> Result<CommandOutput>,
    ) -> Result<()> {
        for consequence in self.consequences() {
            let of_case = |case: &Unseen<'_>| case.rules.iter().any(|(_, part)| consequence.contains(part));
            let is_known = cases.iter().any(of_case) || others.iter().any(|part| consequence.contains(part));
            ensure!(is_known, "no case for: {consequence}");
        }
        for case in cases {
            let says = |output: &CommandOutput| output.to_string().contains(case.text);
            let run = async || run(case.args).await;
            // A command that is refused without the rules may be refused for another reason with them.
            let ends = |output: &CommandOutput| output.code().is_some_and(|code| code <= case.code);
            let with = run_until(run, |output| ends(output) && !says(output)).await;
            with.with_context(|| format!("with all rules: {case:?}"))?;
            let is_about = |rule: &str, (resource, part): &(&str, &str)| {
                resource_of(rule) == Some(*resource) && rule.contains(part)
            };
            for named in case.rules {
                ensure!(self.without(|rule| is_about(rule, named)) != *self, "no rule {named:?}");
            }
            let reduced = self.without(|rule| case.rules.iter().any(|named| is_about(rule, named)));
            reduced.apply(admin, flags).await?;
            let without = run_until(run, |output| output.code() == Some(case.code) && says(output)).await;
            without.with_context(|| format!("without the rules: {case:?}"))?;
            self.apply(admin, flags).await?;
        }
        Ok(())
    }

    /// The roles without the rules for some cases, such as a token storage, that are in their comments.
    #[must_use]
    pub fn not_for(&self, cases: &[&str]) -> Self {
        self.without(|rule| cases.iter().any(|case| rule.contains(case)))
    }

    /// What the comments say that is not known without a rule.
    fn consequences(&self) -> Vec<String> {
        let lines = self.0.iter().flat_map(|role| role.lines());
        lines
            .filter_map(|line| line.strip_prefix("# Without it, ").map(str::to_owned))
            .collect()
    }

    /// The roles without some rules.
    fn without(&self, is_left_out: impl Fn(&str) -> bool) -> Self {
        let reduced = self.0.iter().map(|role| match split(role) {
            Some((head, mut rules)) => {
                rules.retain(|rule| !is_left_out(rule));
                joined(head, &rules)
            }
            None => role.clone(),
        });
        Self(reduced.collect())
    }

    fn without_each_rule(&self, command: &str, other_cases: &[&str]) -> Result<Vec<Reduced>> {
        let mut all = Vec::new();
        for role in &self.0 {
            let Some((head, rules)) = split(role) else {
                continue;
            };
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
                all.push(Reduced {
                    role: Self(vec![role.clone()]),
                    without: Self(vec![joined(head, &others)]),
                    resource: resource_of(rule).context("a rule without a resource")?.to_owned(),
                });
            }
        }
        ensure!(!all.is_empty(), "no rule is for {command}");
        Ok(all)
    }
}

/// The rules of a role, and what is before them. `None`: it is a binding.
fn split(role: &str) -> Option<(&str, Vec<String>)> {
    let (head, rules) = role.split_once("rules:\n")?;
    let rules = rules.split("# For ").skip(1).map(|rule| format!("# For {rule}"));
    Some((head, rules.collect()))
}

fn joined(head: &str, rules: &[String]) -> String {
    if rules.is_empty() {
        format!("{head}rules: []\n")
    } else {
        format!("{head}rules:\n{}", rules.concat())
    }
}

fn resource_of(rule: &str) -> Option<&str> {
    let (_, rest) = rule.split_once("resources: [\"")?;
    rest.split('"').next()
}
