//! The step table of a rotation: the rows `| if | then |` in the comments of its stages.

use anyhow::{Context as _, Result, ensure};
use std::fmt::Write as _;

/// The functions of the stages, and the phase that each of them belongs to.
const STAGES: [(&str, &str); 6] = [
    ("guard", "every"),
    ("make", "make"),
    ("place", "place"),
    ("prove", "prove"),
    ("retire", "retire"),
    ("confirm", "confirm"),
];

/// The table, from the source of the stages.
pub(crate) fn table(source: &str) -> Result<String> {
    let mut table = "| phase | if | then |\n|---|---|---|\n".to_owned();
    for (function, phase) in STAGES {
        let rows = rows(source, function).with_context(|| format!("no function `{function}` in the stages"))?;
        ensure!(
            !rows.is_empty(),
            "the comment of `{function}` has no rows `| if | then |`"
        );
        for row in rows {
            let _ = writeln!(table, "| {phase} {row}");
        }
    }
    Ok(table)
}

/// The rows in the comment of a function. `None`: there is no such function.
fn rows<'source>(source: &'source str, function: &str) -> Option<Vec<&'source str>> {
    let mut rows = Vec::new();
    for line in source.lines() {
        if let Some(comment) = line.strip_prefix("///") {
            let comment = comment.trim();
            let is_row = comment.starts_with('|') && !comment.starts_with("|---") && comment != "| if | then |";
            rows.extend(is_row.then_some(comment));
        } else if line.contains(&format!("fn {function}(")) || line.contains(&format!("fn {function}<")) {
            return Some(rows);
        } else if !line.starts_with("#[") {
            rows.clear();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
/// Not a stage.
///
/// | if | then |
/// |---|---|
/// | never | mind |
fn other() {}

/// What must hold.
///
/// | if | then |
/// |---|---|
/// | the cluster is another one | refuse |
pub(super) fn guard(look: Look<'_>) {}
/// | a | b |
#[expect(unused)]
pub(super) fn make<'look>(look: Look<'look>) {}
/// | c | d |
fn place(look: Look<'_>) {}
/// | e | f |
/// | g | h |
fn prove(look: Look<'_>) {}
/// | i | j |
fn retire(look: Look<'_>) {}
/// | k | l |
fn confirm(look: Look<'_>) {}
";

    #[test]
    fn the_table_has_the_rows_of_every_stage_in_order() {
        insta::assert_snapshot!(table(SOURCE).unwrap(), @r"
        | phase | if | then |
        |---|---|---|
        | every | the cluster is another one | refuse |
        | make | a | b |
        | place | c | d |
        | prove | e | f |
        | prove | g | h |
        | retire | i | j |
        | confirm | k | l |
        ");
    }

    #[test]
    fn a_stage_without_rows_and_a_missing_one_are_errors() {
        let without = SOURCE.replace("/// | c | d |\n", "");
        assert!(table(&without).unwrap_err().to_string().contains("`place` has no rows"));
        let missing = SOURCE.replace("fn retire(", "fn revoke(");
        assert!(
            table(&missing)
                .unwrap_err()
                .to_string()
                .contains("no function `retire`")
        );
    }
}
