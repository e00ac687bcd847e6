//! Which token a snapshot needs. Its hash is not printed: a dictionary would find a token that a person made up.
//!
//! The datastore has one token at a time, and a snapshot can be restored only with the one of its time. What a snapshot shows may lag
//! behind: on demand it shows the token in the files of its server, and on a schedule the one that its server has started with.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use supervisor::TokenHash;
use supervisor::snapshot::SnapshotFile;

/// The token that a snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Needs {
    /// The snapshot does not show it.
    Unknown,
    /// None of the others.
    Older,
    /// The one before that of the newest snapshot.
    Previous,
    /// That of the newest snapshot.
    Current,
    /// One that the user has passed.
    Given,
}

/// What is known about the token of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) needs: Needs,
    /// Where the user has passed it.
    pub(crate) given: Option<&'a str>,
    /// It was taken after another one that shows a later token, or while a rotation is in progress: it may need that one.
    pub(crate) is_uncertain: bool,
}

/// A token that the user has passed, and where.
pub(crate) type PassedToken = (String, TokenHash);

/// The token of each snapshot. `began`: when the rotation in progress did.
pub(crate) fn tokens<'a>(files: &[SnapshotFile], given: &'a [PassedToken], began: Option<Timestamp>) -> Vec<Token<'a>> {
    let taken: Vec<(Timestamp, String)> = files.iter().filter_map(shown).collect();
    let mut newest: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for (created, hash) in &taken {
        let newest = newest.entry(hash).or_insert(*created);
        *newest = (*newest).max(*created);
    }
    let mut order: Vec<&str> = newest.keys().copied().collect();
    order.sort_by_key(|hash| Reverse(newest[hash]));
    let lags = |created: Timestamp, hash: &str| {
        let mut earlier = taken.iter().filter(|(other, _)| *other < created);
        let first = earlier
            .clone()
            .filter(|(_, other)| other == hash)
            .map(|(at, _)| at)
            .min();
        first.is_some_and(|first| earlier.any(|(at, other)| other != hash && at > first))
    };
    let token = |file: &SnapshotFile| {
        let passed = given.iter().find(|(_, hash)| file.token_hash == Some(*hash));
        let hash = file.token_hash.map(|hash| hash.to_string());
        let needs = match (passed, &hash) {
            (Some(_), _) => Needs::Given,
            (None, None) => Needs::Unknown,
            (None, Some(hash)) => match order.iter().position(|other| other == hash) {
                Some(0) => Needs::Current,
                Some(1) => Needs::Previous,
                _ => Needs::Older,
            },
        };
        let is_recent = file.created.zip(began).is_some_and(|(created, began)| created >= began);
        Token {
            needs,
            given: passed.map(|(place, _)| place.as_str()),
            is_uncertain: hash.is_some()
                && (is_recent || shown(file).is_some_and(|(created, hash)| lags(created, &hash))),
        }
    };
    files.iter().map(token).collect()
}

/// `None` also for one that was not taken.
fn shown(file: &SnapshotFile) -> Option<(Timestamp, String)> {
    if file.error.is_some() {
        return None;
    }
    Some((file.created?, file.token_hash?.to_string()))
}

#[cfg(test)]
pub(crate) mod tests {
    use client::secret::Secret;
    use rstest::rstest;

    use super::*;

    pub(crate) fn hash(token: &str) -> TokenHash {
        TokenHash::of(&Secret::new(token))
    }

    /// Snapshots that were taken with these tokens, a minute after each other.
    pub(crate) fn taken_with(tokens: &[Option<&str>]) -> Vec<SnapshotFile> {
        let file = |(minute, token): (usize, Option<&str>)| SnapshotFile {
            object: format!("local-{minute}"),
            name: format!("daily-{minute}"),
            node: "s1".to_owned(),
            is_ready: true,
            created: Timestamp::from_second(minute as i64 * 60).ok(),
            location: format!("file:///var/lib/rancher/k3s/server/db/snapshots/daily-{minute}"),
            size: Some("1024".to_owned()),
            error: None,
            token_hash: token.map(hash),
        };
        tokens.iter().copied().enumerate().map(file).collect()
    }

    fn words(taken: &str, given: &[PassedToken], began: Option<i64>) -> String {
        let names: Vec<String> = taken.chars().map(String::from).collect();
        let files = taken_with(
            &names
                .iter()
                .map(|name| Some(name.as_str()).filter(|name| *name != "-"))
                .collect::<Vec<_>>(),
        );
        let began = began.and_then(|second| Timestamp::from_second(second).ok());
        let word = |token: &Token<'_>| {
            let word = match token.needs {
                Needs::Unknown => "-",
                Needs::Older => "o",
                Needs::Previous => "p",
                Needs::Current => "c",
                Needs::Given => "g",
            };
            format!("{word}{}", if token.is_uncertain { "?" } else { "" })
        };
        tokens(&files, given, began).iter().map(word).collect()
    }

    #[test]
    fn a_snapshot_that_was_not_taken_changes_nothing_for_the_others() {
        let mut files = taken_with(&[Some("old"), Some("new"), Some("failed")]);
        files[2].error = Some("no space".to_owned());
        let needs: Vec<Needs> = tokens(&files, &[], None).iter().map(|token| token.needs).collect();
        assert_eq!(needs[..2], [Needs::Previous, Needs::Current]);
    }

    #[rstest]
    #[case::one("aaa", "ccc")]
    #[case::rotated("aab", "ppc")]
    #[case::rotated_twice("abc", "opc")]
    #[case::without("a-", "c-")]
    #[case::a_server_lags("abab", "pcp?c?")]
    #[case::rolled_back("aaba", "ccpc?")]
    fn each_shows_the_token_of_its_time(#[case] taken: &str, #[case] expected: &str) {
        assert_eq!(words(taken, &[], None), expected);
    }

    #[test]
    fn a_given_token_is_named_and_a_rotation_makes_what_follows_uncertain() {
        let given = [("old".to_owned(), hash("a"))];
        assert_eq!(words("aab", &given, None), "ggc");
        assert_eq!(words("aab", &given, Some(60)), "gg?c?");
        assert_eq!(tokens(&taken_with(&[Some("a")]), &given, None)[0].given, Some("old"));
    }
}
