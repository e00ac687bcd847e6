//! Makes external text safe to print: annotations, descriptions and error messages must not control the terminal.

/// Makes control characters visible (`ESC` becomes `^[`), except line ends and tabs.
pub fn clean(text: &str) -> String {
    if !text.contains(|c: char| is_steering(c) && c != '\n' && c != '\t') {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c => push_visible(&mut shown, c),
        }
    }
    shown
}

/// Like [`clean`], for a text that must stay on its line, so that no name can pretend to be another message.
pub fn line(text: &str) -> String {
    clean(text).replace('\n', "^J")
}

/// A word of a command to paste into a shell: quoted where the shell would not take it literally.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether a shell would do more with this than take it literally. kubectl's completion script for bash evaluates the words
/// that were typed, completed ones too.
pub fn has_shell_syntax(text: &str) -> bool {
    text.contains(|c: char| is_steering(c) || "$`\\\"'|&;<>(){}[]*?!".contains(c))
}

/// Like [`clean`], but keeps these sequences: our own colours.
pub fn clean_but(text: &str, kept: &[String]) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        shown.push_str(&clean(&rest[..at]));
        let sequence = kept.iter().find(|sequence| rest[at..].starts_with(*sequence));
        shown.push_str(sequence.map_or("^[", String::as_str));
        rest = &rest[at + sequence.map_or(1, String::len)..];
    }
    shown + &clean(rest)
}

/// A text for one cell of a table: cut with `...` where a line ends, control characters made visible.
///
/// (kubernetes/cli-runtime v0.33, `pkg/printers/terminal.go` and `tableprinter.go`.)
pub fn cell(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 3);
    push_cell(&mut shown, text);
    shown
}

/// The same at the end of a text.
pub fn push_cell(shown: &mut String, text: &str) {
    // The common case.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        shown.push_str(text);
        return;
    }
    let (line, cut) = match text.find(['\n', '\r', '\u{c}']) {
        Some(end) => (&text[..end], "..."),
        None => (text, ""),
    };
    line.chars().for_each(|c| push_visible(shown, c));
    shown.push_str(cut);
}

fn push_visible(shown: &mut String, c: char) {
    match c {
        // Caret notation, as cat -v and kubectl do.
        '\0'..='\u{1f}' => {
            shown.push('^');
            shown.push(char::from(c as u8 + b'@'));
        }
        c if is_steering(c) => shown.extend(c.escape_unicode()),
        c => shown.push(c),
    }
}

/// C0 and C1 controls, DEL, and the marks that change the direction of text.
fn is_steering(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_made_visible() {
        assert_eq!(cell("\u{1b}[31mred\u{7}"), "^[[31mred^G");
        assert_eq!(clean("a\u{1b}]0;title\nb\u{9b}1m"), "a^[]0;title\nb\\u{9b}1m");
    }

    #[test]
    fn a_line_stays_on_its_line() {
        assert_eq!(line("a\nerror: b\u{1b}"), "a^Jerror: b^[");
    }

    #[test]
    fn a_name_cannot_run_anything_in_a_shell() {
        assert_eq!(shell_word("c-x7k2p"), "c-x7k2p");
        for (name, quoted) in [
            ("$(reboot)", "'$(reboot)'"),
            ("a'b", r"'a'\''b'"),
            ("", "''"),
            ("a;b", "'a;b'"),
        ] {
            assert_eq!(shell_word(name), quoted);
        }
        for name in ["$(reboot)", "`reboot`", "a;b", "a\nb", "a\tb", "\u{1b}[2J", "'", "a&b"] {
            assert!(has_shell_syntax(name), "{name:?}");
        }
        for name in [
            "c-m-abc12345",
            "fleet-default/oslo",
            "Zürich",
            "rancher prod",
            "admin@kind",
            "",
            "~a=b,c:d",
        ] {
            assert!(!has_shell_syntax(name), "{name:?}");
        }
    }

    #[test]
    fn only_our_own_colours_stay() {
        let kept = ["\u{1b}[1m".to_owned(), "\u{1b}[0m".to_owned()];
        assert_eq!(
            clean_but("\u{1b}[1mbold\u{1b}[0m \u{1b}[2J\u{1b}", &kept),
            "\u{1b}[1mbold\u{1b}[0m ^[[2J^["
        );
    }

    #[test]
    fn a_cell_has_only_the_first_line() {
        assert_eq!(cell("first\nsecond"), "first...");
        assert_eq!(cell("first\r\n"), "first...");
        assert_eq!(cell("plain é"), "plain é");
    }
}
