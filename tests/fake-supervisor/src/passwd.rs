//! `server/cred/passwd`: the logins of the supervisor (`pkg/passwd/passwd.go` of v1.36.3+k3s1).

use rand::RngExt as _;

use crate::config::Rows;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) password: String,
    pub(crate) user: String,
    pub(crate) id: String,
    pub(crate) group: String,
}

/// The rows of the file, and whether they differ from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passwd {
    pub(crate) rows: Vec<Row>,
    pub(crate) changed: bool,
}

impl Passwd {
    pub(crate) fn parse(text: &str) -> Self {
        let rows = csv(text).into_iter().filter_map(|fields| {
            let [password, user, id, group] = <[String; 4]>::try_from(fields).ok()?;
            Some(Row {
                password,
                user,
                id,
                group,
            })
        });
        Self {
            rows: rows.collect(),
            changed: false,
        }
    }

    pub(crate) fn password(&self, user: &str) -> Option<&str> {
        let row = self.rows.iter().find(|row| row.user == user)?;
        Some(&row.password)
    }

    /// Sets a password. Only a K10 form of the same user is reduced to its password. The same password is no change.
    pub(crate) fn ensure(&mut self, user: &str, group: &str, password: &str) {
        let password = match password.split_once(&format!("::{user}:")) {
            Some((before, rest)) if before.starts_with("K10") => rest,
            _ => password,
        };
        match self.rows.iter_mut().find(|row| row.user == user) {
            Some(row) if row.password == password => {}
            Some(row) => {
                password.clone_into(&mut row.password);
                self.changed = true;
            }
            None => {
                self.rows.push(Row {
                    password: password.to_owned(),
                    user: user.to_owned(),
                    id: user.to_owned(),
                    group: group.to_owned(),
                });
                self.changed = true;
            }
        }
    }

    /// The text of the file. `write` counts the writes of the cluster.
    pub(crate) fn render(&self, rows: Rows, write: u64) -> String {
        let mut lines: Vec<String> = self
            .rows
            .iter()
            .map(|row| {
                [&row.password, &row.user, &row.id, &row.group]
                    .map(|field| quoted(field))
                    .join(",")
            })
            .collect();
        if rand::rng().random::<bool>() {
            lines.reverse();
        }
        let blank = match rows {
            Rows::Distinct => usize::try_from(write % 61).unwrap_or(0),
            Rows::Random => 0,
        };
        format!("{}\n{}", lines.join("\n"), "\n".repeat(blank))
    }
}

fn quoted(field: &str) -> String {
    let needs = field.contains([',', '"', '\n', '\r']) || field.starts_with(char::is_whitespace);
    if needs {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field, mut inside) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if inside || field.is_empty() => inside = !inside,
            ',' if !inside => record.push(std::mem::take(&mut field)),
            '\n' if !inside => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            _ => field.push(c),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwd(password: &str) -> Passwd {
        let mut passwd = Passwd::default();
        passwd.ensure("node", "k3s:agent", password);
        passwd.ensure("server", "k3s:server", password);
        passwd
    }

    #[test]
    fn any_password_survives_the_file() {
        for password in ["abc", "a b\"c,d", "with-newline\n", " leading", "pässwörd-日本", "a:b"] {
            let text = passwd(password).render(Rows::Distinct, 7);
            let read = Passwd::parse(&text);
            assert_eq!(read.password("server"), Some(password), "{text}");
            assert_eq!(read.password("node"), Some(password));
        }
    }

    #[test]
    fn a_node_token_of_the_server_user_is_kept_whole() {
        let full = format!("K10{}::node:pw", "a".repeat(64));
        assert_eq!(passwd(&full).password("server"), Some(full.as_str()));
        assert_eq!(passwd(&full).password("node"), Some("pw"));
    }

    #[test]
    fn the_same_password_is_no_change() {
        let mut read = Passwd::parse(&passwd("x").render(Rows::Random, 0));
        read.ensure("server", "k3s:server", "x");
        assert!(!read.changed);
    }
}
