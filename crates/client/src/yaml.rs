//! YAML as Go's libraries read it: as JSON first, where of duplicate keys the last one wins.
//!
//! Errors say where the text is wrong, and never quote it: it may be a credential.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

/// Where a text is wrong.
#[derive(Debug, Eq, PartialEq)]
pub enum Invalid {
    /// It is not YAML from this line and column on, where they are known.
    Syntax(Option<(u64, u64)>),
    /// It is YAML, but the value of this field has another type.
    Field(String),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(None) => f.write_str("it is not YAML"),
            Self::Syntax(Some((line, column))) => write!(f, "line {line}, column {column} is not YAML"),
            Self::Field(field) if field == "." => f.write_str("it is not a map"),
            Self::Field(field) => write!(f, "{field} is not valid"),
        }
    }
}

/// Reads a document.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    // One type for the YAML parser: it is compiled again for each type, and is large.
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Invalid::Syntax(error.location().map(|at| (at.line(), at.column()))))?;
    serde_path_to_error::deserialize(value).map_err(|error| Invalid::Field(error.path().to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;

    use super::*;

    #[test]
    fn the_last_of_duplicate_keys_wins() {
        let read: BTreeMap<String, String> = from_str("a: one\na: two\n").unwrap();
        assert_eq!(read["a"], "two");
    }

    #[rstest]
    #[case("a: [one\n", "line ")]
    #[case("a: {b: one}\n", "a is not valid")]
    fn an_error_says_where_and_quotes_nothing(#[case] text: &str, #[case] expected: &str) {
        let error = from_str::<BTreeMap<String, String>>(text).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("one"), "{error}");
    }
}
