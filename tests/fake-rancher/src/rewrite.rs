//! Many registered clusters share one API server. Each has its own namespace there, and each client sees it under the
//! usual name. Names are replaced in requests and responses; watches are rewritten as they flow.

/// Replaces one name with another in a stream of bytes. A name counts only as a whole word: `cattle-system`, but not
/// within `cattle-system-logs`.
pub(crate) struct Rewriter {
    from: Vec<u8>,
    to: Vec<u8>,
    held: Vec<u8>,
    /// The byte before `held`.
    before: u8,
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

impl Rewriter {
    pub(crate) fn new(from: &str, to: &str) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            held: Vec::new(),
            before: b' ',
        }
    }

    /// Takes a chunk, and returns the part that can be passed on. At most the beginning of a name is kept back.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(chunk);
        self.drain(false)
    }

    /// The rest at the end of the stream.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.drain(true)
    }

    fn drain(&mut self, end: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            let Some(start) = rest.iter().position(|byte| *byte == self.from[0]) else {
                out.extend_from_slice(rest);
                at = self.held.len();
                break;
            };
            out.extend_from_slice(&rest[..start]);
            at += start;
            let rest = &self.held[at..];
            let known = rest.len().min(self.from.len());
            if rest[..known] != self.from[..known] {
                out.push(rest[0]);
                at += 1;
                continue;
            }
            let next = rest.get(self.from.len()).copied();
            if !end && (known < self.from.len() || next.is_none()) {
                break;
            }
            let before = if at == 0 { self.before } else { self.held[at - 1] };
            let alone = known == self.from.len() && !next.is_some_and(in_name) && !in_name(before);
            if alone {
                out.extend_from_slice(&self.to);
                at += self.from.len();
            } else {
                out.push(rest[0]);
                at += 1;
            }
        }
        if at > 0 {
            self.before = self.held[at - 1];
        }
        self.held.drain(..at);
        out
    }

    /// All at once.
    pub(crate) fn whole(from: &str, to: &str, text: &[u8]) -> Vec<u8> {
        let mut rewriter = Self::new(from, to);
        let mut out = rewriter.push(text);
        out.extend(rewriter.finish());
        out
    }
}

/// In a path or a query, where `%3D` before a name is not part of it.
pub(crate) fn in_uri(from: &str, to: &str, uri: &str) -> String {
    let mut out = String::with_capacity(uri.len());
    let mut rest = uri;
    while let Some(start) = rest.find(from) {
        let (head, tail) = rest.split_at(start);
        let after = &tail[from.len()..];
        out.push_str(head);
        let escaped = head.len() >= 3 && head.as_bytes()[head.len() - 3] == b'%';
        let alone =
            !after.bytes().next().is_some_and(in_name) && (escaped || !head.bytes().next_back().is_some_and(in_name));
        out.push_str(if alone { to } else { from });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(text: &str) -> String {
        String::from_utf8(Rewriter::whole(
            "cattle-system",
            "cattle-system-c-abcde",
            text.as_bytes(),
        ))
        .unwrap()
    }

    #[test]
    fn a_namespace_is_replaced_in_bodies_and_in_embedded_text() {
        assert_eq!(
            there(r#"{"namespace":"cattle-system"}"#),
            r#"{"namespace":"cattle-system-c-abcde"}"#
        );
        assert_eq!(
            there(r#"{\"namespace\":\"cattle-system\"}"#),
            r#"{\"namespace\":\"cattle-system-c-abcde\"}"#
        );
        assert_eq!(
            there("cattle-system-logs cattle-systems my-cattle-system"),
            "cattle-system-logs cattle-systems my-cattle-system"
        );
        assert_eq!(there("cattle-system"), "cattle-system-c-abcde");
    }

    #[test]
    fn a_name_split_across_chunks_is_replaced() {
        let text = b"x cattle-system-c-abcde y cattle-cattle-system-c-abcde\n";
        for cut in 0..text.len() {
            let mut rewriter = Rewriter::new("cattle-system-c-abcde", "cattle-system");
            let mut out = rewriter.push(&text[..cut]);
            out.extend(rewriter.push(&text[cut..]));
            out.extend(rewriter.finish());
            assert_eq!(out, b"x cattle-system y cattle-cattle-system-c-abcde\n", "cut at {cut}");
        }
    }

    #[test]
    fn complete_lines_are_passed_on_immediately() {
        let mut rewriter = Rewriter::new("cattle-system-c-abcde", "cattle-system");
        assert_eq!(
            rewriter.push(b"{\"type\":\"ADDED\",\"c\":\"c\"}\n"),
            b"{\"type\":\"ADDED\",\"c\":\"c\"}\n"
        );
    }

    #[test]
    fn paths_and_escaped_queries_are_rewritten() {
        let to = "cattle-system-c-abcde";
        assert_eq!(
            in_uri(
                "cattle-system",
                to,
                "/api/v1/namespaces/cattle-system/pods?fieldSelector=metadata.namespace%3Dcattle-system"
            ),
            format!("/api/v1/namespaces/{to}/pods?fieldSelector=metadata.namespace%3D{to}")
        );
        assert_eq!(
            in_uri("cattle-system", to, "/api/v1/namespaces/cattle-system-logs"),
            "/api/v1/namespaces/cattle-system-logs"
        );
    }
}
