//! The word check: words that the field does not use for the thing, each with the field's own.
//!
//! Markdown is read whole. Of Rust and Go, comments, string literals and declared names are read: a test's name is prose, a local
//! variable is not. Names are split into their words.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo::root;

/// Where a word is right all the same. A line is `word | path or "text of the line" | reason`.
const ALLOWED: &str = "crates/xtask/voice-allowed.txt";
/// It has to name the words.
const THIS: &str = "crates/xtask/src/voice.rs";

/// Words and phrases, in lower case, with the field's word.
const WORDS: &[(&[&str], &str)] = &[
    (&["roll-out", "roll-outs"], "rollout"),
    (&["bridge", "bridges", "bridged"], "temporary registration token"),
    (&["park", "parks", "parked", "parking"], "back up"),
    (&["mint", "mints", "minted", "minting"], "create, issue"),
    (&["era", "eras"], "token storage: `status` or `secret`"),
    (
        &[
            "way back",
            "way forth",
            "going back",
            "the road",
            "a road",
            "same road",
            "toward",
            "leg",
            "legs",
        ],
        "direction, rollback",
    ),
    (
        &["goes on", "gone on", "went on", "go on with", "going on with"],
        "resume, continue",
    ),
    (&["under way", "underway"], "in progress"),
    (&["what dies", "dies with", "die with"], "also invalidated"),
    (
        &[
            "let in",
            "lets in",
            "let it in",
            "lets it in",
            "let n in",
            "lets n in",
            "lets o in",
        ],
        "accept",
    ),
    (
        &[
            "at the door",
            "knock",
            "knocks",
            "knocked",
            "greeting",
            "public door",
            "front door",
        ],
        "endpoint, request",
    ),
    (
        &["alive", "living token", "living tokens"],
        "valid (a token), running (a process)",
    ),
    (&["dead token", "dead tokens"], "revoked token, expired token"),
    (
        &[
            "token lives",
            "tokens live",
            "token dies",
            "token died",
            "token has died",
        ],
        "is valid, is revoked, has expired",
    ),
    (
        &[
            "end a token",
            "ends a token",
            "end its token",
            "ends its token",
            "end the token",
            "end the old",
            "ends the old",
            "ends it token",
        ],
        "revoke",
    ),
    (&["obstacle", "obstacles"], "blocker"),
    (&["hiccup", "hiccups"], "transient error"),
    (&["trouble", "troubles"], "error"),
    (&["doubt", "doubts"], "unknown, with a reason"),
    (&["verdict", "verdicts"], "result, status"),
    (&["heard", "told"], "reported, received"),
    (&["surroundings", "scene", "scenes"], "inputs, environment"),
    (
        &["stranger", "strangers", "thief", "thieves", "robbed"],
        "attacker, third party",
    ),
    (&["colleague", "colleagues"], "another operator"),
    (&["whoever", "somebody"], "another operator, a third party, or name who"),
    (&["nobody"], "no one, `<none>`"),
    (&["hushed", "hush"], "suppressed"),
    (&["talk"], "messages"),
    (&["in earnest"], "in production"),
    (&["explorer", "explorers"], "model checker"),
    (&["small world", "small worlds"], "model"),
    (
        &["desk", "desks", "premises", "shop", "bed", "beds"],
        "test environment, fixture",
    ),
    (&["stand-in", "stand-ins"], "fake"),
    (
        &["the house", "a house", "rooms", "floors"],
        "repository layout, crate, layer",
    ),
    (&["shall"], "the present tense"),
    (&["befall", "befalls", "befell"], "happens to"),
];

/// Types whose names say nothing.
const TYPES: &[&str] = &[
    "Again",
    "Answer",
    "Chain",
    "Desk",
    "Doubt",
    "Evidence",
    "Given",
    "Judge",
    "Known",
    "Leg",
    "Link",
    "Mistake",
    "Obstacle",
    "Pace",
    "Perhaps",
    "Product",
    "Scene",
    "Seen",
    "Shown",
    "Standing",
    "Subject",
    "Surroundings",
    "Told",
    "Trouble",
    "Verdict",
    "Wanted",
    "Work",
];

/// A word that is not the field's.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    word: &'static str,
    better: &'static str,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            word,
            better,
            text,
        } = self;
        write!(f, "{path}:{line}: {word:?}: say {better:?}: {text}")
    }
}

/// Checks all files, and prints every finding; with `quiet` only how many there are in each directory.
pub(crate) fn check(quiet: bool) -> Result<()> {
    let allowed = allowed(&fs::read_to_string(root().join(ALLOWED)).with_context(|| format!("read {ALLOWED}"))?)?;
    let mut findings = Vec::new();
    let mut used = vec![false; allowed.len()];
    for path in files()? {
        let text = fs::read_to_string(root().join(&path)).with_context(|| format!("read {path}"))?;
        for finding in in_file(&path, &text) {
            let excuses = allowed.iter().position(|allowed| allowed.excuses(&finding));
            match excuses {
                Some(at) => used[at] = true,
                None => findings.push(finding),
            }
        }
    }
    if !quiet {
        for finding in &findings {
            anstream::eprintln!("{finding}");
        }
    }
    for (directory, count) in by_directory(&findings) {
        anstream::eprintln!("{count:>5}  {directory}");
    }
    for (allowed, _) in allowed.iter().zip(used).filter(|(_, used)| !used) {
        anstream::eprintln!("{ALLOWED}: {:?} | {} allows nothing", allowed.word, allowed.place);
    }
    if findings.is_empty() {
        return Ok(());
    }
    let count = findings.len();
    let more = if quiet { ": `cargo xtask words` lists them" } else { "" };
    bail!("{count} words to replace{more}. Where one is right, say so in {ALLOWED}")
}

fn by_directory(findings: &[Finding]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for finding in findings {
        let directory: Vec<&str> = finding.path.split('/').collect();
        let depth = (directory.len() - 1).min(2);
        let directory = if depth == 0 {
            ".".to_owned()
        } else {
            directory[..depth].join("/")
        };
        *counts.entry(directory).or_default() += 1;
    }
    counts
}

/// The files that people read, as git knows them.
fn files() -> Result<Vec<String>> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("run git")?;
    ensure!(out.status.success(), "git ls-files: {}", out.status);
    let files = String::from_utf8(out.stdout)?;
    let is_read = |path: &&str| {
        let extension = Path::new(path).extension().unwrap_or_default();
        ["md", "rs", "go", "yaml"].iter().any(|known| extension == *known)
    };
    let there = |path: &&str| **path != *THIS && root().join(path).is_file();
    Ok(files.lines().filter(is_read).filter(there).map(str::to_owned).collect())
}

/// Where a word is right.
struct Allowed {
    word: String,
    /// The beginning of a path, or text of the line in quotes.
    place: String,
}

impl Allowed {
    fn excuses(&self, finding: &Finding) -> bool {
        let quoted = self.place.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let is_here = match quoted {
            Some(text) => finding.text.contains(text),
            None => finding.path.starts_with(&self.place),
        };
        is_here && self.word == finding.word
    }
}

fn allowed(text: &str) -> Result<Vec<Allowed>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [word, place, reason] = fields.as_slice() else {
                bail!("{ALLOWED}: not `word | place | reason`: {line}");
            };
            ensure!(!reason.is_empty(), "{ALLOWED}: no reason: {line}");
            Ok(Allowed {
                word: (*word).to_owned(),
                place: (*place).to_owned(),
            })
        })
        .collect()
}

fn in_file(path: &str, text: &str) -> Vec<Finding> {
    let is_code = [".rs", ".go"].iter().any(|end| path.ends_with(end));
    let prose = if is_code {
        prose_of_code(text)
    } else {
        prose_of_page(text)
    };
    let lines: Vec<&str> = text.lines().collect();
    let mut found: Vec<Finding> = Vec::new();
    let mut tail = String::new();
    for Prose { line, text, is_type } in prose {
        let source = lines.get(line - 1).map_or("", |line| line.trim());
        let mut add = |word, better| {
            found.push(Finding {
                path: path.to_owned(),
                line,
                word,
                better,
                text: source.to_owned(),
            });
        };
        if is_type && let Some(name) = TYPES.iter().find(|name| **name == text) {
            add(*name, "a noun of the domain");
        }
        let words = normalized(&text);
        // A phrase may begin at the end of the line before.
        let joined = format!("{tail} {words}");
        for (entries, better) in WORDS {
            for entry in *entries {
                let times = occurrences(&joined, entry) - occurrences(&tail, entry);
                (0..times).for_each(|_| add(*entry, *better));
            }
        }
        let last: Vec<&str> = words.rsplit(' ').take(3).collect();
        tail = last.into_iter().rev().collect::<Vec<_>>().join(" ");
    }
    found
}

/// A piece of text that people read, and its line.
struct Prose {
    line: usize,
    text: String,
    /// It is the name of a type.
    is_type: bool,
}

fn prose_of_page(text: &str) -> Vec<Prose> {
    let prose = |(at, line): (usize, &str)| Prose {
        line: at + 1,
        text: line.to_owned(),
        is_type: false,
    };
    text.lines().enumerate().map(prose).collect()
}

/// Comments, string literals and declared names.
fn prose_of_code(text: &str) -> Vec<Prose> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let mut keyword = "";
    while at < bytes.len() {
        let rest = &text[at..];
        let (end, prose) = if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            (end, rest[..end].trim_start_matches(['/', '!', ' ']))
        } else if rest.starts_with('"') {
            let end = end_of_string(rest);
            (end, &rest[1..end - 1])
        } else if let Some(end) = end_of_raw_string(rest) {
            (end, &rest[..end])
        } else if let Some(end) = end_of_char(rest) {
            (end, "")
        } else if rest.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let name = &rest[..end];
            let declares = [
                "fn", "func", "struct", "enum", "trait", "type", "mod", "const", "static",
            ]
            .contains(&keyword);
            if declares {
                let is_type = ["struct", "enum", "trait", "type"].contains(&keyword);
                let text = name.to_owned();
                found.push(Prose { line, text, is_type });
            }
            keyword = name;
            at += end;
            continue;
        } else {
            let end = rest.chars().next().map_or(1, char::len_utf8);
            if !rest.starts_with(char::is_whitespace) {
                keyword = "";
            }
            line += usize::from(rest.starts_with('\n'));
            at += end;
            continue;
        };
        for (number, text) in prose.lines().enumerate() {
            let text = text.to_owned();
            found.push(Prose {
                line: line + number,
                text,
                is_type: false,
            });
        }
        line += rest[..end].matches('\n').count();
        at += end;
    }
    found
}

/// After the closing quote.
fn end_of_string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// After `r"…"`, `r#"…"#`, or Go's backquotes.
fn end_of_raw_string(rest: &str) -> Option<usize> {
    if let Some(text) = rest.strip_prefix('`') {
        return Some(text.find('`').map_or(rest.len(), |end| end + 2));
    }
    let text = rest.strip_prefix('r')?;
    let hashes = text.len() - text.trim_start_matches('#').len();
    let text = text[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = text.find(&close)?;
    Some(1 + hashes + 1 + end + close.len())
}

/// After a character such as `'"'`; a lifetime is none.
fn end_of_char(rest: &str) -> Option<usize> {
    let text = rest.strip_prefix('\'')?;
    let first = text.chars().next()?;
    let length = if first == '\\' {
        1 + text[1..].find('\'')?
    } else {
        first.len_utf8()
    };
    text[length..].starts_with('\'').then_some(length + 2)
}

/// In lower case, with names split into their words.
fn normalized(text: &str) -> String {
    let mut words = String::new();
    let mut before = ' ';
    for c in text.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        if c.is_alphanumeric() || "-'`<>".contains(c) {
            words.extend(c.to_lowercase());
        } else if c == '_' || c.is_whitespace() {
            if !words.ends_with(' ') {
                words.push(' ');
            }
        } else {
            // Phrases end at punctuation.
            words.push(c);
        }
        before = c;
    }
    words.trim().to_owned()
}

/// How often a word stands in a text by itself.
fn occurrences(text: &str, word: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric();
    let alone = |at: &usize| {
        let before = text[..*at].chars().next_back();
        let after = text[*at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    };
    text.match_indices(word).map(|(at, _)| at).filter(alone).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        in_file(path, text)
            .iter()
            .map(|finding| (finding.line, finding.word))
            .collect()
    }

    #[test]
    fn a_page_is_read_whole_and_a_phrase_may_be_wrapped() {
        let page = "# The roll-out\n\nA rotation is under\nway, and a token is minted.\nRemints and underway2 are other words.";
        assert_eq!(
            found("docs/a.md", page),
            [(1, "roll-out"), (4, "minted"), (4, "under way")]
        );
    }

    #[test]
    fn of_code_comments_strings_and_declared_names_are_read() {
        let code = r#"
/// The way back.
fn a_stranger_is_refused(mint: u8) {
    let bridge = "nobody";
    let quote = '"';
    // parked
    call(bridge, 'a');
}
struct Verdict;
"#;
        let expected = [
            (2, "way back"),
            (3, "stranger"),
            (4, "nobody"),
            (6, "parked"),
            (9, "Verdict"),
            (9, "verdict"),
        ];
        assert_eq!(found("a.rs", code), expected);
    }

    #[test]
    fn a_word_is_allowed_by_path_or_by_text() {
        let allowed =
            allowed("# Comment\nbridge | tests/cluster/ | a network bridge\ntold | \"told apart\" | an idiom\n")
                .unwrap();
        let finding = |path: &str, word, text: &str| Finding {
            path: path.to_owned(),
            line: 1,
            word,
            better: "",
            text: text.to_owned(),
        };
        assert!(allowed[0].excuses(&finding("tests/cluster/a.rs", "bridge", "")));
        assert!(!allowed[0].excuses(&finding("docs/a.md", "bridge", "")));
        assert!(allowed[1].excuses(&finding("docs/a.md", "told", "They are told apart.")));
        assert!(!allowed[1].excuses(&finding("docs/a.md", "told", "It is told.")));
        assert!(super::allowed("bridge | docs\n").is_err());
    }
}
