//! The permissions of a plugin: the table in its page, and the manifests with the roles.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use clap::Command;
use client::permission::{Names, Need, Permission, PermissionTable};

/// The markers of the table in the page of the plugin.
pub(crate) const MARKER: &str = "permissions";

const LABEL: &str = "kubectl-rotation.github.io";

/// Fails if a command has no row and is not listed as one that needs none.
pub(crate) fn is_complete(command: &Command, table: &PermissionTable) -> Result<()> {
    let rows = table.rows.iter().flat_map(|row| row.commands);
    let known: BTreeSet<&str> = rows.chain(table.free).map(|name| first_word(name)).collect();
    for command in command.get_subcommands() {
        let name = command.get_name();
        ensure!(known.contains(name), "no row in the table of permissions for `{name}`");
    }
    Ok(())
}

fn first_word(name: &str) -> &str {
    name.split(' ').next().unwrap_or(name)
}

/// The rows of the page.
pub(crate) fn markdown(table: &PermissionTable) -> String {
    let sides = sides(table);
    let mut page = String::new();
    for side in &sides {
        if sides.len() > 1 {
            let _ = writeln!(page, "\nOn {side}:\n");
        }
        page.push_str("| commands | namespace | verbs | resource | without it |\n|---|---|---|---|---|\n");
        for row in table.rows.iter().filter(|row| row.side == *side) {
            let namespace = match row.namespace {
                "" => "–".to_owned(),
                name => format!("`{name}`"),
            };
            let mut resource = format!("`{}`", resource(row));
            if let Names::Only(names) = row.names {
                let _ = write!(resource, ", only {}", quoted(names));
            }
            let without = match row.need {
                Need::Required => "the command fails".to_owned(),
                Need::When(condition) => format!("the command fails {condition}"),
                Need::Optional(consequence) => consequence.to_owned(),
            };
            let (commands, verbs) = (quoted(row.commands), row.verbs.join(", "));
            let _ = writeln!(page, "| {commands} | {namespace} | {verbs} | {resource} | {without} |");
        }
    }
    let _ = writeln!(page, "\nNo permission is needed by {}.", quoted(table.free));
    page
}

fn resource(row: &Permission) -> String {
    let (resource, subresource) = row.resource.split_once('/').unwrap_or((row.resource, ""));
    let group = if row.group.is_empty() {
        String::new()
    } else {
        format!(".{}", row.group)
    };
    let subresource = if subresource.is_empty() {
        String::new()
    } else {
        format!("/{subresource}")
    };
    format!("{resource}{group}{subresource}")
}

fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

/// The sides, in the order of the table.
fn sides(table: &PermissionTable) -> Vec<&'static str> {
    let mut sides: Vec<&'static str> = Vec::new();
    for row in table.rows {
        if !sides.contains(&row.side) {
            sides.push(row.side);
        }
    }
    sides
}

/// The manifests: a role and its binding for each side, namespace, kind of access and kind of need.
pub(crate) fn manifests(plugin: &str, table: &PermissionTable) -> String {
    let mut text = format!(
        "# Written by `cargo xtask docs` from plugins/{plugin}/src/rights.rs. Do not edit.\n#\n\
         # Roles for `kubectl {plugin}`, bound to user USER. Replace the words in capitals, and select by label what to apply.\n"
    );
    let sides = sides(table);
    let apart = table.apart.iter().map(|(name, _)| *name);
    for access in ["read", "write"].into_iter().chain(apart) {
        for need in ["required", "optional"] {
            for side in &sides {
                let of_role = |row: &&Permission| {
                    row.side == *side && row.commands.iter().any(|command| table.access(command) == access)
                };
                let rows: Vec<&Permission> = table.rows.iter().filter(of_role).collect();
                let mut namespaces: Vec<&str> = Vec::new();
                for row in &rows {
                    if !namespaces.contains(&row.namespace) {
                        namespaces.push(row.namespace);
                    }
                }
                for namespace in namespaces {
                    let rows: Vec<&Permission> =
                        rows.iter().copied().filter(|row| row.namespace == namespace).collect();
                    let rules = rules(&rows, need == "optional");
                    if !rules.is_empty() {
                        let side = (sides.len() > 1).then(|| first_word(side.trim_start_matches("the ")));
                        text += &role(plugin, (access, need, side), namespace, &rules);
                    }
                }
            }
        }
    }
    text
}

/// A rule, the commands that need it, and the comment about its condition.
struct Rule {
    row: Permission,
    verbs: Vec<&'static str>,
    commands: Vec<&'static str>,
    comments: Vec<String>,
}

impl Rule {
    /// Whether it is about the same objects as a row: a role cannot name those that a command is about.
    fn is_about(&self, row: &Permission) -> bool {
        let only = |row: &Permission| match row.names {
            Names::Only(names) => Some(names),
            Names::All | Names::Target(_) => None,
        };
        (self.row.group, self.row.resource, only(&self.row)) == (row.group, row.resource, only(row))
    }

    /// Whether it allows a verb on the objects of a row.
    fn covers(&self, row: &Permission, verb: &str) -> bool {
        let names_all = !matches!(self.row.names, Names::Only(_));
        let same = (self.row.group, self.row.resource) == (row.group, row.resource);
        same && (names_all || self.is_about(row)) && self.verbs.contains(&verb)
    }

    fn add(&mut self, row: &Permission, verbs: &[&'static str], comment: Option<String>) {
        let new = verbs.iter().filter(|verb| !self.verbs.contains(verb)).copied();
        self.verbs.extend(new.collect::<Vec<_>>());
        let new = row
            .commands
            .iter()
            .filter(|command| !self.commands.contains(command))
            .copied();
        self.commands.extend(new.collect::<Vec<_>>());
        let new = comment.filter(|comment| !self.comments.contains(comment));
        self.comments.extend(new);
    }
}

/// The rules of one role, in the order of the table: first what is always required, then what is under a condition, and at
/// last what is optional. A verb that is allowed by a rule before is left out.
fn rules(rows: &[&Permission], optional: bool) -> Vec<Rule> {
    let required = collected(rows, |need| need == Need::Required, Vec::new());
    let required = collected(rows, |need| matches!(need, Need::When(_)), required);
    if !optional {
        return required;
    }
    let count = required.len();
    collected(rows, |need| matches!(need, Need::Optional(_)), required).split_off(count)
}

fn collected(rows: &[&Permission], is_wanted: impl Fn(Need) -> bool, before: Vec<Rule>) -> Vec<Rule> {
    let count = before.len();
    let mut rules = before;
    // Rules about all objects come first, since they allow what those about some objects would.
    let (some, all): (Vec<&Permission>, Vec<&Permission>) = rows
        .iter()
        .copied()
        .filter(|row| is_wanted(row.need))
        .partition(|row| matches!(row.names, Names::Only(_)));
    for row in all.into_iter().chain(some) {
        let is_known = |verb: &&str| rules[..count].iter().any(|rule| rule.covers(row, verb));
        let is_covered = |verb: &&str| rules.iter().any(|rule| !rule.is_about(row) && rule.covers(row, verb));
        let verbs: Vec<&str> = row
            .verbs
            .iter()
            .copied()
            .filter(|verb| !is_known(verb) && !is_covered(verb))
            .collect();
        if verbs.is_empty() {
            continue;
        }
        let comment = match row.need {
            Need::Required => None,
            Need::When(condition) => Some(format!("Only {condition}.")),
            Need::Optional(consequence) => Some(format!("Without it, {consequence}.")),
        };
        match rules[count..].iter_mut().find(|rule| rule.is_about(row)) {
            Some(rule) => rule.add(row, &verbs, comment),
            None => rules.push(Rule {
                row: *row,
                verbs,
                commands: row.commands.to_vec(),
                comments: comment.into_iter().collect(),
            }),
        }
    }
    rules
}

fn role(plugin: &str, (access, need, side): (&str, &str, Option<&str>), namespace: &str, rules: &[Rule]) -> String {
    let suffix = if need == "optional" { "-optional" } else { "" };
    let name = format!("kubectl-{plugin}-{access}{suffix}");
    let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
    let mut metadata = format!("metadata:\n  name: {name}\n");
    if !namespace.is_empty() {
        let _ = writeln!(metadata, "  namespace: {namespace}");
    }
    let _ = writeln!(
        metadata,
        "  labels:\n    {LABEL}/access: {access}\n    {LABEL}/need: {need}"
    );
    if let Some(side) = side {
        let _ = writeln!(metadata, "    {LABEL}/side: {side}");
    }
    let api = "apiVersion: rbac.authorization.k8s.io/v1\n";
    let mut text = format!("---\n{api}kind: {kind}\n{metadata}rules:\n");
    for rule in rules {
        let Rule { row, verbs, .. } = rule;
        let _ = writeln!(text, "# For {}.", rule.commands.join(", "));
        for comment in &rule.comments {
            let _ = writeln!(text, "# {comment}");
        }
        let _ = writeln!(
            text,
            "- apiGroups: [{:?}]\n  resources: [{:?}]",
            row.group, row.resource
        );
        if let Names::Only(names) = row.names {
            let _ = writeln!(text, "  resourceNames: {names:?}");
        }
        let _ = writeln!(text, "  verbs: {verbs:?}");
    }
    let _ = write!(
        text,
        "---\n{api}kind: {kind}Binding\n{metadata}roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: {name}\n\
         subjects:\n- apiGroup: rbac.authorization.k8s.io\n  kind: User\n  name: USER\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: (&str, &str) = ("the cluster", "apps");
    const TABLE: PermissionTable = PermissionTable {
        rows: &[
            Permission::on(
                ("the cluster", ""),
                ("example.com", "widgets"),
                &["get"],
                &["list", "rotate"],
                Need::Required,
            )
            .target("ID"),
            Permission::on(HERE, ("", "secrets"), &["get"], &["rotate"], Need::Required),
            Permission::on(
                HERE,
                ("", "secrets"),
                &["get", "patch"],
                &["rotate"],
                Need::When("with `--deliver`"),
            ),
            Permission::on(
                HERE,
                ("", "secrets"),
                &["get", "list"],
                &["rotate"],
                Need::Optional("it is slower"),
            ),
            Permission::on(
                HERE,
                ("", "services/proxy"),
                &["get"],
                &["list"],
                Need::Optional("it is unknown"),
            )
            .only(&["a"]),
            Permission::on(HERE, ("", "pods"), &["create"], &["replace"], Need::Required),
        ],
        reading: &["list"],
        apart: &[("own", &["replace"])],
        free: &["version"],
    };

    #[test]
    fn each_command_has_a_row_or_needs_none() {
        let command = Command::new("x").subcommands(["list", "rotate", "version"].map(Command::new));
        is_complete(&command, &TABLE).unwrap();
        let error = is_complete(&command.subcommand(Command::new("add")), &TABLE).unwrap_err();
        assert!(error.to_string().contains("`add`"), "{error}");
    }

    #[test]
    fn the_page_says_what_happens_without_a_permission() {
        insta::assert_snapshot!(markdown(&TABLE), @r"
        | commands | namespace | verbs | resource | without it |
        |---|---|---|---|---|
        | `list`, `rotate` | – | get | `widgets.example.com` | the command fails |
        | `rotate` | `apps` | get | `secrets` | the command fails |
        | `rotate` | `apps` | get, patch | `secrets` | the command fails with `--deliver` |
        | `rotate` | `apps` | get, list | `secrets` | it is slower |
        | `list` | `apps` | get | `services/proxy`, only `a` | it is unknown |
        | `replace` | `apps` | create | `pods` | the command fails |

        No permission is needed by `version`.
        ");
    }

    #[test]
    fn a_role_has_each_verb_once_with_its_reason() {
        let text = manifests("x", &TABLE);
        let rules = |name: &str, kind: &str| {
            let role = text.split("---\n").find(|document| {
                document.contains(&format!("kind: {kind}\n")) && document.contains(&format!("name: {name}\n"))
            });
            role.unwrap().split("rules:\n").nth(1).unwrap().to_owned()
        };
        insta::assert_snapshot!(rules("kubectl-x-write", "Role"), @r#"
        # For rotate.
        - apiGroups: [""]
          resources: ["secrets"]
          verbs: ["get"]
        # For rotate.
        # Only with `--deliver`.
        - apiGroups: [""]
          resources: ["secrets"]
          verbs: ["patch"]
        "#);
        insta::assert_snapshot!(rules("kubectl-x-write-optional", "Role"), @r#"
        # For rotate.
        # Without it, it is slower.
        - apiGroups: [""]
          resources: ["secrets"]
          verbs: ["list"]
        "#);
        insta::assert_snapshot!(rules("kubectl-x-read-optional", "Role"), @r#"
        # For list.
        # Without it, it is unknown.
        - apiGroups: [""]
          resources: ["services/proxy"]
          resourceNames: ["a"]
          verbs: ["get"]
        "#);
        insta::assert_snapshot!(rules("kubectl-x-own", "Role"), @r#"
        # For replace.
        - apiGroups: [""]
          resources: ["pods"]
          verbs: ["create"]
        "#);
        assert_eq!(text.matches("kind: ClusterRoleBinding\n").count(), 2, "{text}");
    }
}
