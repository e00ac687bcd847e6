//! One snapshot in a list: where it is, and which token restores it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;

use cli::age;
use cli::output::Printable;
use cli::table::Column;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use supervisor::snapshot::SnapshotFile;

use super::needs::{Needs, PassedToken, tokens};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SnapshotRow {
    name: String,
    /// The object, whose name is unique.
    object: String,
    node: String,
    location: String,
    created: Option<Timestamp>,
    size: Option<String>,
    pub(super) needs: Needs,
    /// Where the user has passed the token that it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    given: Option<String>,
    /// It may need a later token than it shows.
    pub(super) uncertain: bool,
    ready: bool,
    /// Why it was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    age: String,
}

/// All snapshots that the cluster shows, those that no known token restores first.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    pub(crate) rows: Vec<SnapshotRow>,
    /// The number of different tokens that they need.
    pub(crate) tokens: usize,
    /// The user has passed a token.
    pub(crate) has_given: bool,
}

impl Snapshots {
    /// `began`: when the rotation in progress did.
    pub(crate) fn new(
        files: Vec<SnapshotFile>,
        given: &[PassedToken],
        began: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let tokens = tokens(&files, given, began);
        let taken = files.iter().filter(|file| file.error.is_none());
        let hashes: BTreeSet<String> = taken.filter_map(|file| Some(file.token_hash?.to_string())).collect();
        let mut rows: Vec<SnapshotRow> = files
            .into_iter()
            .zip(tokens)
            .map(|(file, token)| SnapshotRow {
                name: file.name,
                object: file.object,
                node: file.node,
                location: file.location,
                created: file.created,
                size: file.size,
                needs: token.needs,
                given: token.given.map(str::to_owned),
                uncertain: token.is_uncertain,
                ready: file.is_ready && file.error.is_none(),
                error: file.error,
                age: age::since(now, file.created),
            })
            .collect();
        rows.sort_by_key(|row| (row.needs, Reverse(row.created), row.name.clone()));
        Self {
            rows,
            tokens: hashes.len(),
            has_given: !given.is_empty(),
        }
    }

    /// The line of `server-token status`.
    pub(crate) fn line(&self) -> String {
        let all = self.count(|_| true);
        match (all, self.has_given) {
            (0, _) => "Snapshots: <none>".to_owned(),
            (_, false) => format!("Snapshots: {all}"),
            (_, true) => {
                let [given, unknown] = [Needs::Given, Needs::Unknown].map(|it| self.count(|needs| needs == it));
                let another = all - given - unknown;
                format!("Snapshots: {all} ({given} need the given token, {another} another, {unknown} unknown)")
            }
        }
    }

    /// Those that can be restored.
    pub(crate) fn count(&self, is: impl Fn(Needs) -> bool) -> usize {
        let can = |row: &&SnapshotRow| row.error.is_none() && is(row.needs);
        self.rows.iter().filter(can).count()
    }
}

/// `4.2Mi`, as kubectl writes quantities of memory.
fn size(bytes: Option<&str>) -> Cow<'_, str> {
    let Some(text) = bytes else { return "<unknown>".into() };
    let Ok(bytes) = text.parse::<f64>() else {
        return text.into();
    };
    let units = ["", "Ki", "Mi", "Gi", "Ti"];
    let unit = (0..units.len() - 1).find(|power| bytes < 1024_f64.powi(*power as i32 + 1));
    let power = unit.unwrap_or(units.len() - 1);
    let number = bytes / 1024_f64.powi(power as i32);
    let digits = usize::from(power > 0 && number < 10.0);
    format!("{number:.digits$}{}", units[power]).into()
}

impl SnapshotRow {
    pub(super) fn object(&self) -> &str {
        &self.object
    }

    /// For the first line of a plan.
    pub(super) fn token_in_words(&self) -> String {
        let token = match (self.needs, self.given.as_deref()) {
            (Needs::Given, place) => format!("the token in {}", place.unwrap_or_default()),
            (Needs::Current, _) => "the token of the newest snapshot".to_owned(),
            (Needs::Previous, _) => "the token before that of the newest snapshot".to_owned(),
            (Needs::Older, _) => "an older token".to_owned(),
            (Needs::Unknown, _) => "the token of its time, which it does not show".to_owned(),
        };
        if self.uncertain {
            format!("{token}, or the one after that")
        } else {
            token
        }
    }
}

impl Printable for SnapshotRow {
    const COLUMNS: &'static [Column] = &[
        Column::new("NAME"),
        Column::new("NODE"),
        Column::new("SIZE"),
        Column::new("AGE"),
        Column::new("TOKEN"),
        Column::new("STATE"),
        Column::wide("OBJECT"),
        Column::wide("LOCATION"),
    ];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        let token = match (self.needs, self.given.as_deref()) {
            (Needs::Given, Some(place)) => place,
            (Needs::Given, None) => "given",
            (Needs::Current, _) => "current",
            (Needs::Previous, _) => "previous",
            (Needs::Older, _) => "older",
            (Needs::Unknown, _) => "<unknown>",
        };
        let token: Cow<'_, str> = if self.uncertain {
            format!("{token}?").into()
        } else {
            token.into()
        };
        let state: Cow<'_, str> = match &self.error {
            Some(error) => format!("failed: {error}").into(),
            None if self.ready => "ready".into(),
            None => "not-ready".into(),
        };
        vec![
            self.name.as_str().into(),
            self.node.as_str().into(),
            size(self.size.as_deref()),
            self.age.as_str().into(),
            token,
            state,
            self.object.as_str().into(),
            self.location.as_str().into(),
        ]
    }

    fn name(&self) -> String {
        format!("etcdsnapshotfile.k3s.cattle.io/{}", self.object)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::needs::tests::{hash, taken_with};
    use super::*;

    #[test]
    fn what_no_known_token_restores_comes_first() {
        let mut files = taken_with(&[Some("old"), Some("new"), Some("new"), None, Some("older")]);
        files[4].created = Timestamp::from_second(-60).ok();
        files[2].error = Some("no space left on device".to_owned());
        let given = [("token.txt".to_owned(), hash("new"))];
        let snapshots = Snapshots::new(files, &given, None, Timestamp::from_second(600).unwrap());
        let cells: Vec<String> = snapshots.rows.iter().map(|row| row.cells()[..6].join(" ")).collect();
        insta::assert_snapshot!(cells.join("\n"), @r"
        daily-3 s1 1.0Ki 7m <unknown> ready
        daily-4 s1 1.0Ki 11m older ready
        daily-0 s1 1.0Ki 10m previous ready
        daily-2 s1 1.0Ki 8m token.txt failed: no space left on device
        daily-1 s1 1.0Ki 9m token.txt ready
        ");
        assert_eq!(snapshots.tokens, 3);
        assert_eq!(
            snapshots.line(),
            "Snapshots: 4 (1 need the given token, 2 another, 1 unknown)"
        );
        assert_eq!(snapshots.count(|needs| needs == Needs::Given), 1);
    }

    #[test]
    fn each_snapshot_needs_the_given_token_or_another() {
        let mut files = taken_with(&[Some("old"), Some("new"), Some("new"), None, Some("failed")]);
        files[4].error = Some("no space".to_owned());
        let given = [("token.txt".to_owned(), hash("new"))];
        let of = |given: &[PassedToken]| Snapshots::new(files.clone(), given, None, Timestamp::UNIX_EPOCH);
        let snapshots = of(&given);
        assert_eq!(
            snapshots.line(),
            "Snapshots: 4 (2 need the given token, 1 another, 1 unknown)"
        );
        assert_eq!(snapshots.tokens, 2);
        let without = of(&[]);
        assert_eq!((without.line().as_str(), without.tokens), ("Snapshots: 4", 2));
    }

    #[rstest]
    #[case(None, "<unknown>")]
    #[case(Some("512"), "512")]
    #[case(Some("4404019"), "4.2Mi")]
    #[case(Some("31457280"), "30Mi")]
    #[case(Some("5Mi"), "5Mi")]
    fn sizes_have_the_units_of_quantities(#[case] bytes: Option<&str>, #[case] expected: &str) {
        assert_eq!(size(bytes), expected);
    }
}
