//! A plugin's table of permissions: which commands need which verbs on a resource, and on which side.
//!
//! It is the only place where they are written down. The preflight check of a rotation asks for the rows of the rotation, and
//! the documentation and the manifests with the roles are generated from all of them.

use crate::access::Right;

/// All permissions of a plugin.
#[derive(Clone, Copy, Debug)]
pub struct PermissionTable {
    /// The rows. Those of a preflight check are asked for, and named, in this order.
    pub rows: &'static [Permission],
    /// The commands that only read. All others write.
    pub reading: &'static [&'static str],
    /// The commands that write and have roles of their own, by the name of these: who may run the others does not get their permissions.
    pub apart: &'static [(&'static str, &'static [&'static str])],
    /// The commands that need no permission.
    pub free: &'static [&'static str],
}

/// One row: verbs on a resource, where, and for which commands.
#[derive(Clone, Copy, Debug)]
pub struct Permission {
    /// `the management cluster`
    pub side: &'static str,
    /// The commands.
    pub commands: &'static [&'static str],
    /// The namespace. Empty: the whole cluster. In capitals: a placeholder.
    pub namespace: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The resource, plural, with its subresource.
    pub resource: &'static str,
    /// The objects.
    pub names: Names,
    /// The verbs.
    pub verbs: &'static [&'static str],
    /// Whether the commands work without it.
    pub need: Need,
}

/// The objects of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// All of them.
    All,
    /// Those with these names. In capitals: a placeholder.
    Only(&'static [&'static str]),
    /// The one that the command is about, as a placeholder. A role cannot name it in advance.
    Target(&'static str),
}

/// Whether a command works without a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It does not.
    Required,
    /// It does not under this condition, such as `with --deliver`.
    When(&'static str),
    /// It does, and this is the consequence: `rotations in progress are unknown`.
    Optional(&'static str),
}

impl Permission {
    /// A row about all objects of a resource: `(group, resource)`. An empty `namespace` is the whole cluster.
    pub const fn on(
        (side, namespace): (&'static str, &'static str),
        (group, resource): (&'static str, &'static str),
        verbs: &'static [&'static str],
        commands: &'static [&'static str],
        need: Need,
    ) -> Self {
        Self {
            side,
            commands,
            namespace,
            group,
            resource,
            names: Names::All,
            verbs,
            need,
        }
    }

    /// The same for the objects with these names.
    #[must_use]
    pub const fn only(self, names: &'static [&'static str]) -> Self {
        Self {
            names: Names::Only(names),
            ..self
        }
    }

    /// The same for the object that a command is about.
    #[must_use]
    pub const fn target(self, placeholder: &'static str) -> Self {
        Self {
            names: Names::Target(placeholder),
            ..self
        }
    }
}

impl PermissionTable {
    /// The kind of access that the roles of a command give.
    pub fn access(&self, command: &str) -> &'static str {
        let mut apart = self.apart.iter();
        match apart.find(|(_, commands)| commands.contains(&command)) {
            Some((name, _)) => name,
            None if self.reading.contains(&command) => "read",
            None => "write",
        }
    }

    /// What a command cannot do without on one side, if only the named conditions hold. `values`: placeholders, and what
    /// stands for them.
    pub fn required(&self, command: &str, side: &str, conditions: &[&str], values: &[(&str, &str)]) -> Vec<Right> {
        let value = |text: &'static str| {
            let known = values.iter().find(|(placeholder, _)| *placeholder == text);
            known.map_or(text, |(_, value)| value).to_owned()
        };
        let mut rights: Vec<Right> = Vec::new();
        let rows = self.rows.iter().filter(|row| {
            let is_needed = match row.need {
                Need::Required => true,
                Need::When(condition) => conditions.contains(&condition),
                Need::Optional(_) => false,
            };
            is_needed && row.side == side && row.commands.contains(&command)
        });
        for row in rows {
            let names = match row.names {
                Names::All => vec![String::new()],
                Names::Only(names) => names.iter().copied().map(value).collect(),
                Names::Target(placeholder) => vec![value(placeholder)],
            };
            for name in names {
                rights.extend(row.verbs.iter().map(|verb| {
                    Right::new(verb, row.group, row.resource)
                        .in_namespace(&value(row.namespace))
                        .named(&name)
                }));
            }
        }
        let mut known = std::collections::HashSet::new();
        rights.retain(|right| known.insert(right.clone()));
        rights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: &str = "the cluster";
    const STORED: &str = "with storage `secret`";
    const TABLE: PermissionTable = PermissionTable {
        rows: &[
            Permission::on(
                (SIDE, ""),
                ("apps", "widgets"),
                &["get"],
                &["list", "rotate"],
                Need::Required,
            )
            .target("ID"),
            Permission::on((SIDE, "ID"), ("", "secrets"), &["get"], &["rotate"], Need::When(STORED)).only(&["a", "b"]),
            Permission::on(
                (SIDE, "ID"),
                ("", "pods"),
                &["list"],
                &["rotate"],
                Need::Optional("it is slower"),
            ),
            Permission::on(
                (SIDE, ""),
                ("apps", "widgets"),
                &["get", "list"],
                &["rotate"],
                Need::Required,
            )
            .target("ID"),
            Permission::on(("elsewhere", ""), ("", "pods"), &["get"], &["rotate"], Need::Required),
            Permission::on((SIDE, ""), ("", "pods"), &["delete"], &["list"], Need::Required),
        ],
        reading: &["list"],
        apart: &[],
        free: &[],
    };

    fn required(conditions: &[&str]) -> Vec<String> {
        let rights = TABLE.required("rotate", SIDE, conditions, &[("ID", "c-1")]);
        rights.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_the_command_cannot_do_without_is_required_and_once() {
        assert_eq!(required(&[]), ["get widgets.apps \"c-1\"", "list widgets.apps \"c-1\""]);
    }

    #[test]
    fn a_conditional_permission_is_required_where_its_condition_holds() {
        assert_eq!(
            required(&[STORED])[1..3],
            [
                "get secrets \"a\" in namespace c-1",
                "get secrets \"b\" in namespace c-1"
            ]
        );
    }
}
