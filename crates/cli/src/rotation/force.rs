//! `--force=CHECK`: the checks of a rotation by name, each with what overriding it means.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use engine::rotation::{Check, Rotation};

/// Parses the name of a check of this rotation.
pub fn parser<R: Rotation>() -> impl TypedValueParser<Value = Check> {
    of(R::CHECKS)
}

/// Parses the name of one of these checks.
pub fn of(checks: &'static [Check]) -> impl TypedValueParser<Value = Check> {
    let values = checks
        .iter()
        .map(|check| PossibleValue::new(check.name).help(check.help));
    PossibleValuesParser::new(values).try_map(move |name| {
        let named = checks.iter().find(|check| check.name == name);
        named.copied().ok_or_else(|| format!("unknown check {name:?}"))
    })
}
