//! Which token the snapshots of etcd need. Their hash is not printed: a dictionary would find a token that a person made up.

use std::collections::BTreeSet;

use serde::Serialize;
use supervisor::TokenHash;
use supervisor::snapshot::SnapshotFile;

/// The token that a snapshot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Needs {
    /// The token that the user has passed.
    Given,
    Another,
    /// The snapshot does not show it, or no token was passed.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SnapshotRow {
    name: String,
    node: String,
    created: Option<String>,
    needs: Needs,
}

/// All snapshots that the cluster shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshots {
    pub rows: Vec<SnapshotRow>,
    /// The number of different tokens that they need.
    pub tokens: usize,
}

impl Snapshots {
    pub(crate) fn new(files: Vec<SnapshotFile>, given: Option<TokenHash>) -> Self {
        // A failed snapshot cannot be restored.
        let files: Vec<SnapshotFile> = files.into_iter().filter(|file| file.error.is_none()).collect();
        let hashes = files.iter().filter_map(|file| file.token_hash);
        let tokens = hashes.map(|hash| hash.to_string()).collect::<BTreeSet<_>>().len();
        let row = |file: SnapshotFile| SnapshotRow {
            needs: match (file.token_hash, given) {
                (Some(needed), Some(given)) if needed == given => Needs::Given,
                (Some(_), Some(_)) => Needs::Another,
                _ => Needs::Unknown,
            },
            name: file.name,
            node: file.node,
            created: file.created,
        };
        Self {
            rows: files.into_iter().map(row).collect(),
            tokens,
        }
    }

    pub(crate) fn count(&self, needs: Needs) -> usize {
        self.rows.iter().filter(|row| row.needs == needs).count()
    }

    /// The line of the page. `has_token`: a token was passed.
    pub(crate) fn line(&self, has_token: bool) -> String {
        let all = self.rows.len();
        match (all, has_token) {
            (0, _) => "Snapshots: <none>".to_owned(),
            (_, false) => format!("Snapshots: {all}"),
            (_, true) => {
                let [given, another, unknown] =
                    [Needs::Given, Needs::Another, Needs::Unknown].map(|needs| self.count(needs));
                format!("Snapshots: {all} ({given} need the given token, {another} another, {unknown} unknown)")
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use client::secret::Secret;

    use super::*;

    /// Those that were taken with these tokens.
    pub(crate) fn taken_with(tokens: &[Option<&str>]) -> Vec<SnapshotFile> {
        let file = |token: Option<&str>| SnapshotFile {
            object: String::new(),
            name: "daily".to_owned(),
            node: "s1".to_owned(),
            is_ready: true,
            created: None,
            error: None,
            token_hash: token.map(|token| TokenHash::of(&Secret::new(token))),
        };
        tokens.iter().copied().map(file).collect()
    }

    #[test]
    fn each_snapshot_needs_the_given_token_or_another() {
        let mut files = taken_with(&[Some("old"), Some("new"), Some("new"), None, Some("failed")]);
        files[4].error = Some("no space".to_owned());
        let given = TokenHash::of(&Secret::new("new"));
        let snapshots = Snapshots::new(files.clone(), Some(given));
        assert_eq!(
            snapshots.line(true),
            "Snapshots: 4 (2 need the given token, 1 another, 1 unknown)"
        );
        assert_eq!(snapshots.tokens, 2);
        let without = Snapshots::new(files, None);
        assert_eq!((without.line(false).as_str(), without.tokens), ("Snapshots: 4", 2));
        assert_eq!(without.count(Needs::Unknown), 4);
    }
}
