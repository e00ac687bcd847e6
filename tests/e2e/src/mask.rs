//! Masks the values in the output of a command that differ from run to run, so that a snapshot can show the rest. A mask is
//! as wide as the value where columns depend on it.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Masks the ids, times, fingerprints and processes of a text. The same value gets the same mask within one text.
pub fn mask_output(text: &str) -> String {
    RULES.iter().fold(text.to_owned(), |text, (pattern, mask)| {
        mask_pattern(&text, pattern, *mask)
    })
}

/// How a value is masked.
#[derive(Clone, Copy)]
enum Mask {
    /// With this text.
    As(&'static str),
    /// With a letter for each distinct value, in order of appearance, repeated to the same width.
    Lettered,
}

static RULES: LazyLock<Vec<(Regex, Mask)>> = LazyLock::new(|| {
    let rules = [
        // A fingerprint; an object's name may end in one.
        (r"\b[0-9a-f]{10}\b", Mask::Lettered),
        (r"\bcattle-credentials-[0-9a-z]+", Mask::As("cattle-credentials-…")),
        (
            r"\bcattle-cluster-agent-[0-9a-z]+-[0-9a-z]{5}\b",
            Mask::As("cattle-cluster-agent-…"),
        ),
        (r"\bc-(m-[0-9a-z]{8}|[0-9a-z]{5})\b", Mask::As("c-id123")),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", Mask::As("<uid>")),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", Mask::As("<time>")),
        (r"process \d+ on [^\s,)]+", Mask::As("process <pid> on <host>")),
        (r"([Rr]otation|run {7}) [b-z2-9]{5}\b", Mask::As("$1 <run>")),
        (
            r"(renewed|started|begun|ended|in|settle:|retry:|proof:)( in)? \d+[smhd]\d*s?( ago)?",
            Mask::As("$1$2 <age>$3"),
        ),
        // In a table, the space after a short value belongs to the column.
        (r"\b3[01]d\b", Mask::As("30d")),
        (r"(?m)\b(\d\ds\b|\ds |\ds$)", Mask::As("<n>")),
        (r"Kubernetes v1\.\d+\.\d+", Mask::As("Kubernetes <version>")),
        (r"127\.0\.0\.1:\d+", Mask::As("127.0.0.1:<port>")),
    ];
    rules
        .into_iter()
        .filter_map(|(pattern, mask)| Some((Regex::new(pattern).ok()?, mask)))
        .collect()
});

fn mask_pattern(text: &str, pattern: &Regex, mask: Mask) -> String {
    let mut known: Vec<String> = Vec::new();
    let replaced = pattern.replace_all(text, |found: &Captures<'_>| match mask {
        Mask::As(text) => {
            let mut expanded = String::new();
            found.expand(text, &mut expanded);
            expanded
        }
        Mask::Lettered => {
            let value = &found[0];
            let place = known.iter().position(|one| one == value).unwrap_or_else(|| {
                known.push(value.to_owned());
                known.len() - 1
            });
            let letter = u8::try_from(place).map_or('?', |place| char::from(b'A' + place.min(25)));
            letter.to_string().repeat(value.len())
        }
    });
    replaced.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_value_has_the_same_mask_and_columns_stay() {
        let table = "oslo   c-x7k2p   739e2d9420   9s    agent\nlima   c-9v2mm   0123456789   12s   739e2d9420";
        let masked = "oslo   c-id123   AAAAAAAAAA   <n>   agent\nlima   c-id123   BBBBBBBBBB   <n>   AAAAAAAAAA";
        assert_eq!(mask_output(table), masked);
    }

    #[test]
    fn every_rule_is_a_regular_expression() {
        assert_eq!(RULES.len(), 13);
    }

    #[test]
    fn a_holder_and_a_run_are_hidden_and_their_words_stay() {
        let text = "process 4711 on laptop, renewed 4s ago; Rotation x7k2p is in progress";
        assert_eq!(
            mask_output(text),
            "process <pid> on <host>, renewed <age> ago; Rotation <run> is in progress"
        );
    }
}
