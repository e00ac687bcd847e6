//! kubectl's JSONPath templates: a thin front end over a JSONPath library.
//!
//! kubectl's dialect is older than RFC 9535 and looks different (`{.a.b}`, `\.` for a dot within a key, `{range}`), so
//! it is translated. What is understood, and nothing else:
//!
//! | | |
//! |---|---|
//! | text outside braces, `{"\n"}`, `{'x'}` | as it is |
//! | `{.a.b}`, `{a.b}`, `{@.a}`, `{$.a}` | fields; the leading `$` may be left out; within `{range}` a path starts at the item, but for `$` |
//! | `.a\.b`, `['a.b']` | a key with a dot |
//! | `[0]`, `[-1]`, `[0:2]`, `[*]`, `.*`, `['a','b']`, `[0,2]`, `..a` | elements, all of them, unions, at any depth |
//! | `[?(@.x=="y")]`, with `!=` `<` `<=` `>` `>=`, and `[?(@.x)]` | those elements for which it holds |
//! | `{range .a[*]}…{end}` | the template for each |
//!
//! Several results stand with a space between them, objects and lists as JSON, and what is absent prints nothing.
//! (kubernetes/client-go v0.33, `util/jsonpath`.)

use client::error::Error;
use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template(Vec<Node>);

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Path(Path),
    Range(Path, Vec<Node>),
}

#[derive(Clone, Debug)]
struct Path {
    /// It starts at the whole value, not at the item of the range.
    absolute: bool,
    query: JpQuery,
}

impl Template {
    /// Reads a template: text with expressions in braces.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut open: Vec<(Option<Path>, Vec<Node>)> = vec![(None, Vec::new())];
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            push(&mut open, Node::Text(rest[..start].to_owned()));
            let end = closing(&rest[start + 1..]).ok_or_else(|| refused(text, "a { is not closed"))?;
            let inside = rest[start + 1..=start + end].trim();
            rest = &rest[start + end + 2..];
            match inside.split_once(char::is_whitespace) {
                _ if inside == "end" => match open.pop() {
                    Some((Some(path), body)) => push(&mut open, Node::Range(path, body)),
                    _ => return Err(refused(text, "{end} without {range}")),
                },
                Some(("range", path)) => open.push((Some(Path::parse(path.trim())?), Vec::new())),
                _ => match quoted(inside) {
                    Some(literal) => push(&mut open, Node::Text(literal)),
                    None => push(&mut open, Node::Path(Path::parse(inside)?)),
                },
            }
        }
        push(&mut open, Node::Text(rest.to_owned()));
        match (open.pop(), open.is_empty()) {
            (Some((None, nodes)), true) => Ok(Self(nodes)),
            _ => Err(refused(text, "{range} without {end}")),
        }
    }

    /// Reads a single expression, for `--sort-by` and custom columns: braces and the leading dot may be left out.
    pub(crate) fn expression(text: &str) -> Result<Self, Error> {
        let inside = text.trim();
        let inside = inside
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .unwrap_or(inside);
        Ok(Self(vec![Node::Path(Path::parse(inside)?)]))
    }

    /// The text that the template makes of a value.
    pub fn render(&self, value: &Value) -> Result<String, Error> {
        let mut text = String::new();
        render(&self.0, value, value, &mut text)?;
        Ok(text)
    }

    /// The values that a single expression finds.
    pub(super) fn find<'v>(&self, value: &'v Value) -> Result<Vec<&'v Value>, Error> {
        match self.0.as_slice() {
            [Node::Path(path)] => path.find(value, value),
            _ => Ok(Vec::new()),
        }
    }
}

fn push(open: &mut [(Option<Path>, Vec<Node>)], node: Node) {
    if let Some((_, nodes)) = open.last_mut() {
        nodes.push(node);
    }
}

fn render(nodes: &[Node], root: &Value, current: &Value, text: &mut String) -> Result<(), Error> {
    for node in nodes {
        match node {
            Node::Text(literal) => text.push_str(literal),
            Node::Path(path) => {
                let found = path.find(root, current)?;
                text.push_str(&found.into_iter().map(plain).collect::<Vec<_>>().join(" "));
            }
            Node::Range(path, body) => {
                for item in path.find(root, current)? {
                    render(body, root, item, text)?;
                }
            }
        }
    }
    Ok(())
}

/// A value as kubectl prints it in a line: texts bare, the rest as compact JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The characters outside of quotes, with their places. A backslash takes the next one with it.
fn bare(text: &str) -> impl Iterator<Item = (usize, char)> + '_ {
    let (mut quote, mut escaped) = (None, false);
    text.char_indices().filter(move |&(_, c)| {
        if escaped {
            escaped = false;
            return false;
        }
        match (quote, c) {
            (_, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) => return true,
        }
        false
    })
}

/// Where the brace that is open is closed.
fn closing(text: &str) -> Option<usize> {
    bare(text).find(|&(_, c)| c == '}').map(|(at, _)| at)
}

/// The text of `"…"` or `'…'`, if that is all there is.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut literal = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return None,
            '\\' => literal.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            c => literal.push(c),
        }
    }
    Some(literal)
}

impl Path {
    fn parse(text: &str) -> Result<Self, Error> {
        let translated = Translator { text, rest: text }.path()?;
        let query = parse_json_path(&format!("${translated}")).map_err(|_| refused(text, "it is not valid"))?;
        Ok(Self {
            absolute: text.starts_with('$'),
            query,
        })
    }

    fn find<'v>(&self, root: &'v Value, current: &'v Value) -> Result<Vec<&'v Value>, Error> {
        let from = if self.absolute { root } else { current };
        let found =
            js_path_process(&self.query, from).map_err(|_| Error::failed("the jsonpath cannot be evaluated"))?;
        Ok(found.into_iter().map(|found| found.val).collect())
    }
}

/// From kubectl's dialect to RFC 9535.
struct Translator<'t> {
    text: &'t str,
    rest: &'t str,
}

impl Translator<'_> {
    fn path(mut self) -> Result<String, Error> {
        self.rest = self.rest.strip_prefix(['$', '@']).unwrap_or(self.rest);
        let mut out = String::new();
        if self.rest.starts_with(|c: char| c != '.' && c != '[') {
            // The leading dot may be left out.
            out.push_str(&self.field()?);
        }
        while !self.rest.is_empty() {
            out.push_str(&self.segment()?);
        }
        Ok(out)
    }

    fn segment(&mut self) -> Result<String, Error> {
        if let Some(rest) = self.rest.strip_prefix("..") {
            self.rest = rest;
            let of = if rest.starts_with('[') {
                self.brackets()?
            } else {
                self.field()?
            };
            return Ok(format!("..{of}"));
        }
        if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            // `{.}` is the value itself, and `.['a']` is as good as `['a']`.
            return if rest.is_empty() || rest.starts_with('[') {
                Ok(String::new())
            } else {
                self.field()
            };
        }
        if self.rest.starts_with('[') {
            return self.brackets();
        }
        Err(refused(
            self.text,
            "only fields, elements and filters can follow one another",
        ))
    }

    /// A key up to the next special character; a backslash takes the next character as it is.
    fn field(&mut self) -> Result<String, Error> {
        let mut key = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => key.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                c if c.is_whitespace()
                    || matches!(c, ',' | ']' | '$' | '@' | '{' | '}' | '(' | ')' | '|' | '"' | '\'') =>
                {
                    return Err(refused(
                        self.text,
                        &format!("{c:?} is not valid in a key; quote it as ['…']"),
                    ));
                }
                c => key.push(c),
            }
        }
        self.rest = &self.rest[end..];
        match key.as_str() {
            "" => Err(refused(self.text, "a key is missing")),
            "*" => Ok("[*]".into()),
            key => Ok(format!("[{}]", name(key))),
        }
    }

    fn brackets(&mut self) -> Result<String, Error> {
        let end = closing_bracket(self.rest).ok_or_else(|| refused(self.text, "a [ is not closed"))?;
        let inside = self.rest[1..end].trim();
        self.rest = &self.rest[end + 1..];
        if let Some(filter) = inside.strip_prefix('?') {
            let filter = filter
                .trim()
                .strip_prefix('(')
                .and_then(|filter| filter.strip_suffix(')'));
            let filter = filter.ok_or_else(|| refused(self.text, "a filter is written ?(…)"))?;
            return Ok(format!("[?{}]", self.filter(filter.trim())?));
        }
        let selectors: Result<Vec<String>, Error> =
            split_union(inside).into_iter().map(|one| self.selector(one)).collect();
        Ok(format!("[{}]", selectors?.join(",")))
    }

    fn selector(&self, text: &str) -> Result<String, Error> {
        let number = |text: &str| text.is_empty() || text.parse::<i64>().is_ok();
        match quoted(text) {
            Some(key) => Ok(name(&key)),
            None if text == "*" => Ok("*".into()),
            None if !text.is_empty() && text.split(':').count() <= 3 && text.split(':').all(number) => {
                Ok(text.to_owned())
            }
            None => Err(refused(
                self.text,
                &format!("[{text}] is neither an index, a slice, nor a quoted key"),
            )),
        }
    }

    /// One comparison, or "has it".
    fn filter(&self, text: &str) -> Result<String, Error> {
        let Some((at, operator)) = operator(text) else {
            return self.operand(text);
        };
        let (left, right) = (&text[..at], &text[at + operator.len()..]);
        Ok(format!(
            "{}{operator}{}",
            self.operand(left.trim())?,
            self.operand(right.trim())?
        ))
    }

    fn operand(&self, text: &str) -> Result<String, Error> {
        if let Some(literal) = quoted(text) {
            return Ok(name(&literal));
        }
        if matches!(text, "true" | "false" | "null") || text.parse::<f64>().is_ok() {
            return Ok(text.to_owned());
        }
        match text.strip_prefix('@') {
            Some(path) => Ok(format!(
                "@{}",
                Translator {
                    text: self.text,
                    rest: path
                }
                .path()?
            )),
            None => Err(refused(
                self.text,
                "a filter compares a path that starts with @ with a quoted text, a number, true or false",
            )),
        }
    }
}

/// A text in quotes, as RFC 9535 wants it.
fn name(key: &str) -> String {
    Value::from(key).to_string()
}

/// The bracket that closes the first one, not one of an inner pair.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut depth = 0;
    let closes = |&(_, c): &(usize, char)| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        depth == 0
    };
    bare(text).find(closes).map(|(at, _)| at)
}

fn split_union(text: &str) -> Vec<&str> {
    let mut start = 0;
    let commas = bare(text)
        .filter(|&(_, c)| c == ',')
        .map(|(at, _)| at)
        .chain([text.len()]);
    commas
        .map(|at| text[std::mem::replace(&mut start, at + 1)..at].trim())
        .collect()
}

/// The comparison, the longer ones first.
fn operator(text: &str) -> Option<(usize, &'static str)> {
    let operator = |at: usize| {
        ["==", "!=", "<=", ">=", "<", ">"]
            .into_iter()
            .find(|known| text[at..].starts_with(known))
    };
    bare(text).find_map(|(at, _)| operator(at).map(|known| (at, known)))
}

fn refused(text: &str, why: &str) -> Error {
    Error::failed(format!("error parsing jsonpath {text}, {why}"))
        .hint("a subset of kubectl's jsonpath is understood: fields, indices, slices, [*], ?(@.a==\"b\"), {range}…{end}; for more, use -o json with jq")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn store() -> Value {
        json!({
            "kind": "List",
            "items": [
                { "metadata": { "name": "a", "labels": { "kubernetes.io/x": "1" } }, "status": { "ok": true, "n": 3 } },
                { "metadata": { "name": "b" }, "status": { "ok": false, "n": 10, "list": [1, 2] } },
            ],
        })
    }

    #[test]
    fn templates_print_what_kubectl_prints() {
        for (template, expected) in [
            ("{.kind}", "List"),
            ("{kind}", "List"),
            ("{$.kind}", "List"),
            ("plain", "plain"),
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1].metadata.name}", "b"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0:1].metadata.name}", "a"),
            ("{.items[*].metadata['name']}", "a b"),
            ("{..name}", "a b"),
            (r"{.items[0].metadata.labels.kubernetes\.io/x}", "1"),
            ("{.items[0].metadata.labels['kubernetes.io/x']}", "1"),
            ("{.items[?(@.metadata.name==\"b\")].status.n}", "10"),
            ("{.items[?(@.status.n>5)].metadata.name}", "b"),
            ("{.items[?(@.status.ok==true)].metadata.name}", "a"),
            ("{.items[?(@.status.list)].metadata.name}", "b"),
            ("{.items[?(@.metadata.name!='a')].metadata.name}", "b"),
            ("{.items[1].status.list}", "[1,2]"),
            ("{.items[0].metadata.labels}", "{\"kubernetes.io/x\":\"1\"}"),
            ("{.absent.field}", ""),
            (
                "{range .items[*]}{.metadata.name}{\"\\t\"}{.status.n}{\"\\n\"}{end}",
                "a\t3\nb\t10\n",
            ),
            ("{range .items[*]}{@.metadata.name}/{$.kind} {end}", "a/List b/List "),
            ("{range .items[*]}[{range .status.list[*]}{.};{end}]{end}", "[][1;2;]"),
            ("a{\"}\"}b", "a}b"),
        ] {
            let got = Template::parse(template).unwrap().render(&store()).unwrap();
            assert_eq!(got, expected, "{template}");
        }
    }

    #[test]
    fn an_invalid_template_is_rejected() {
        for template in [
            "{.a",
            "{range .a[*]}",
            "{end}",
            "{.a[}",
            "{.a b}",
            "{.items[(@.length-1)]}",
            "{.items[?(@.x =~ \"y\")]}",
            "{.items[?(@.x==$.y)]}",
            "{.items[x]}",
            "{.a|length}",
            "{.a..}",
            "{.a[?@.x]}",
        ] {
            let error = Template::parse(template).unwrap_err().to_string();
            assert!(
                error.starts_with("error: error parsing jsonpath "),
                "{template}: {error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_template_makes_the_parser_panic(text in "[{}\\[\\].a@$?('\"\\\\=,:*0 -]{0,24}") {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.render(&store());
            }
        }
    }
}
