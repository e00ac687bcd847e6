use super::*;
use crate::ui::{Terminal, UiFlags};

#[derive(serde::Serialize)]
struct Row {
    name: &'static str,
    age: u32,
    word: &'static str,
}

impl Printable for Row {
    const COLUMNS: &'static [Column] = &[Column::new("NAME"), Column::new("AGE"), Column::wide("WORD")];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        vec![self.name.into(), self.age.to_string().into(), self.word.into()]
    }

    fn name(&self) -> String {
        format!("row.example.io/{}", self.name)
    }
}

const KIND: ListKind = ListKind {
    api_version: "example.io/v1",
    kind: "RowList",
};
const ROWS: &[Row] = &[
    Row {
        name: "node-10",
        age: 7,
        word: "yes",
    },
    Row {
        name: "node-9",
        age: 30,
        word: "1_000",
    },
];

fn flags(output: &str) -> OutputFlags {
    OutputFlags {
        output: Some(output.into()),
        ..OutputFlags::default()
    }
}

fn printed(flags: &OutputFlags, rows: &[Row]) -> Result<(String, String), Error> {
    let (ui, captured) = Ui::buffered(Terminal::default(), UiFlags::default(), "");
    print_list(&ui, flags, KIND, rows, "No resources found in default namespace.")?;
    Ok((captured.out(), captured.err()))
}

#[test]
fn every_form_shows_the_same_rows() {
    let cases = [
        ("", "NAME      AGE\nnode-10   7\nnode-9    30\n"),
        (
            "wide",
            "NAME      AGE   WORD\nnode-10   7     yes\nnode-9    30    1_000\n",
        ),
        ("name", "row.example.io/node-10\nrow.example.io/node-9\n"),
        ("jsonpath={.items[*].name}", "node-10 node-9"),
        (
            "custom-columns=N:.name,W:{.word},X:.absent",
            "N         W       X\nnode-10   yes     <none>\nnode-9    1_000   <none>\n",
        ),
    ];
    for (format, expected) in cases {
        assert_eq!(printed(&flags(format), ROWS).unwrap().0, expected, "{format}");
    }
}

#[test]
fn json_has_four_spaces_and_sorted_keys() {
    let (out, _) = printed(&flags("json"), &ROWS[..1]).unwrap();
    insta::assert_snapshot!(out, @r#"
    {
        "apiVersion": "example.io/v1",
        "items": [
            {
                "age": 7,
                "name": "node-10",
                "word": "yes"
            }
        ],
        "kind": "RowList",
        "metadata": {}
    }
    "#);
}

#[test]
fn yaml_quotes_words_that_yaml_1_1_misreads() {
    let (out, _) = printed(&flags("yaml"), ROWS).unwrap();
    insta::assert_snapshot!(out, @r#"
    apiVersion: example.io/v1
    items:
    - age: 7
      name: node-10
      word: "yes"
    - age: 30
      name: node-9
      word: "1_000"
    kind: RowList
    metadata: {}
    "#);
}

#[test]
fn nothing_is_said_on_stderr_only() {
    let said = (String::new(), "No resources found in default namespace.\n".to_owned());
    assert_eq!(printed(&flags(""), &[]).unwrap(), said);
    assert_eq!(printed(&flags("name"), &[]).unwrap(), (String::new(), String::new()));
    assert!(printed(&flags("json"), &[]).unwrap().0.contains("\"items\": []"));
}

#[test]
fn an_unknown_format_is_refused_in_kubectls_words() {
    let error = printed(&flags("foo"), ROWS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: unable to match a printer suitable for the output format \"foo\", allowed formats are: \
         custom-columns, json, jsonpath, jsonpath-file, name, wide, yaml"
    );
    assert_eq!(error.kind, client::error::Kind::Failed);
    for format in [
        "go-template={{.x}}",
        "jsonpath",
        "jsonpath=",
        "custom-columns=",
        "custom-columns=A",
        "json=x",
    ] {
        assert!(printed(&flags(format), ROWS).is_err(), "{format}");
    }
}

#[test]
fn a_list_is_sorted_by_a_path_numbers_as_numbers() {
    for (path, first) in [
        ("{.name}", "node-9"),
        (".age", "node-10"),
        ("age", "node-10"),
        ("{.word}", "node-9"),
    ] {
        let flags = OutputFlags {
            sort_by: Some(path.into()),
            no_headers: Some(true),
            output: None,
        };
        assert!(printed(&flags, ROWS).unwrap().0.starts_with(first), "{path}");
    }
    let flags = OutputFlags {
        sort_by: Some(".nothing".into()),
        ..OutputFlags::default()
    };
    assert!(
        printed(&flags, ROWS)
            .unwrap_err()
            .to_string()
            .contains("couldn't find any field")
    );
}

#[test]
fn a_template_may_stand_in_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{range .items[*]}{.name}{\"\\n\"}{end}").unwrap();
    let flags = flags(&format!("jsonpath-file={}", file.path().display()));
    assert_eq!(printed(&flags, ROWS).unwrap().0, "node-10\nnode-9\n");
}

/// Two pages, of which the second is empty where `pages` is 1.
fn printed_in_pages(flags: &OutputFlags, pages: usize) -> Vec<String> {
    let (ui, captured) = Ui::buffered(Terminal::default(), UiFlags::default(), "");
    let mut printer = ListPrinter::new(&ui, flags, KIND, "nothing").unwrap();
    let row = |name, age| Row { name, age, word: "w" };
    let mut shown = Vec::new();
    for page in [vec![row("node-10", 7)], vec![row("b", 1), row("a", 2)]]
        .into_iter()
        .take(pages)
    {
        printer.add(page);
        printer.flush().unwrap();
        shown.push(captured.out());
    }
    printer.flush().unwrap();
    printer.finish().unwrap();
    shown.push(captured.out() + &captured.err());
    shown
}

#[test]
fn a_table_is_printed_page_by_page_and_other_formats_at_the_end() {
    let first = "NAME      AGE\nnode-10   7\n";
    let both = format!("{first}b         1\na         2\n");
    assert_eq!(printed_in_pages(&flags(""), 2), [first, &both, &both]);
    assert_eq!(printed_in_pages(&flags(""), 0), ["nothing\n"]);
    let names = "row.example.io/node-10\nrow.example.io/b\nrow.example.io/a\n";
    assert_eq!(printed_in_pages(&flags("name"), 2), ["", "", names]);
    let sorted = OutputFlags {
        sort_by: Some("{.name}".into()),
        ..OutputFlags::default()
    };
    let sorted = printed_in_pages(&sorted, 2);
    assert_eq!(
        sorted[1..],
        ["", "NAME      AGE\na         2\nb         1\nnode-10   7\n"]
    );
}
