//! The result of a script: lines `@<nonce> <name> <fields>`. Everything else on standard output is ignored, such as a message of the
//! day. A field is `=text`, or `x` and hexadecimal digits. The last record is `end` or `error`.

use client::secret::Secret;
use zeroize::Zeroizing;

use crate::error::NodeProblem;

/// A record. A field may be a secret only in the result of a script that was asked for one.
pub(crate) struct ResultRecord {
    pub(crate) name: String,
    fields: Vec<Secret>,
}

impl ResultRecord {
    /// A field, or nothing.
    pub(crate) fn text(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", Secret::expose)
    }

    /// A field that is not empty.
    pub(crate) fn some(&self, index: usize) -> Option<String> {
        Some(self.text(index))
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, index: usize) -> Option<T> {
        self.text(index).parse().ok()
    }

    pub(crate) fn secret(&self, index: usize) -> Secret {
        self.fields.get(index).cloned().unwrap_or_else(|| Secret::new(""))
    }
}

/// The records of a complete result.
pub(crate) fn parse(nonce: &str, output: &[u8]) -> Result<Vec<ResultRecord>, NodeProblem> {
    let text = Zeroizing::new(String::from_utf8_lossy(output).into_owned());
    let prefix = format!("@{nonce} ");
    let mut records = Vec::new();
    for line in text.lines() {
        let Some(line) = line.trim_end_matches('\r').strip_prefix(&prefix) else {
            continue;
        };
        let mut fields = line.split(' ').map(decode);
        let name = fields
            .next()
            .flatten()
            .ok_or(NodeProblem::Malformed)?
            .expose()
            .to_owned();
        let fields = fields.collect::<Option<_>>().ok_or(NodeProblem::Malformed)?;
        records.push(ResultRecord { name, fields });
    }
    match records.last() {
        Some(record) if record.name == "end" => Ok(records),
        Some(record) if record.name == "error" => Err(NodeProblem::of_record(record)),
        _ => Err(NodeProblem::Incomplete),
    }
}

fn decode(field: &str) -> Option<Secret> {
    if let Some(text) = field.strip_prefix('=') {
        return Some(Secret::new(text));
    }
    let digits = field.strip_prefix('x')?.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes = Zeroizing::new(pairs.collect::<Option<Vec<u8>>>()?);
    Some(Secret::new(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn other_lines_are_ignored() {
        let output = b"Welcome!\n@n =place =/etc/a x0a27 =\r\n@other =place =x\n@n =end\n";
        let records = parse("n", output).unwrap();
        assert_eq!(records.len(), 2);
        let record = &records[0];
        assert_eq!(
            (record.name.as_str(), record.text(0), record.text(1), record.some(2)),
            ("place", "/etc/a", "\n'", None)
        );
    }

    #[rstest]
    #[case("", "incomplete")]
    #[case("@n =place =a\n", "incomplete")]
    #[case("@n =end\n@n =pla", "incomplete")]
    #[case("@n =place x0\n@n =end\n", "malformed")]
    #[case("@n =place y\n@n =end\n", "malformed")]
    #[case("@n =error =changed x6120 =/f\n", "it has changed")]
    fn a_result_that_is_not_whole_is_an_error(#[case] output: &str, #[case] expected: &str) {
        let problem = parse("n", output.as_bytes()).err().unwrap();
        assert!(
            matches!(
                (&problem, expected),
                (NodeProblem::Incomplete, "incomplete")
                    | (NodeProblem::Malformed, "malformed")
                    | (NodeProblem::Changed { .. }, _)
            ),
            "{problem:?}"
        );
    }
}
