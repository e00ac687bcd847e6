//! The output formats of `-o`, as in kubectl.
//!
//! The rows of a command implement [`Printable`]. Table, JSON, YAML, names, JSONPath and custom columns are all derived
//! from it, so they contain the same data.

mod columns;
mod jsonpath;
mod printer;
mod sort;

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

pub use self::columns::CustomColumns;
pub use self::jsonpath::Template;
pub use self::printer::ListPrinter;
use crate::table::{Column, Look, Table};
use crate::ui::Ui;
use client::error::{Error, io_words};

/// kubectl's list of what `-o` takes, in its order.
const ALLOWED: &str = "custom-columns, json, jsonpath, jsonpath-file, name, wide, yaml";

/// The flags of a verb that prints. Flatten them into it.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct OutputFlags {
    /// Output format: json, yaml, name, wide, jsonpath=TEMPLATE, jsonpath-file=FILE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options", add = formats())]
    pub output: Option<String>,

    /// Do not print the headers of a table
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL", help_heading = "Output options")]
    pub no_headers: Option<bool>,

    /// Sort a list by this JSONPath expression, such as '{.name}'
    #[arg(long, value_name = "JSONPATH", help_heading = "Output options")]
    pub sort_by: Option<String>,
}

fn formats() -> clap_complete::engine::ArgValueCandidates {
    clap_complete::engine::ArgValueCandidates::new(|| {
        [
            "json",
            "yaml",
            "name",
            "wide",
            "jsonpath=",
            "jsonpath-file=",
            "custom-columns=",
        ]
        .into_iter()
        .map(clap_complete::CompletionCandidate::new)
        .collect()
    })
}

impl OutputFlags {
    /// What is asked for.
    pub fn format(&self) -> Result<OutputFormat, Error> {
        OutputFormat::parse(self.output.as_deref().unwrap_or_default())
    }

    /// The format of a verb that prints one page, which has no wide form and no name.
    pub fn of_page(output: Option<&String>, verb: &str) -> Result<(Self, OutputFormat), Error> {
        let flags = Self {
            output: output.cloned(),
            ..Self::default()
        };
        match flags.format()? {
            OutputFormat::Wide | OutputFormat::Name => Err(Error::usage(format!(
                "{verb} prints a page, json, yaml, jsonpath or custom-columns"
            ))),
            format => Ok((flags, format)),
        }
    }

    fn look(&self, wide: bool) -> Look {
        Look {
            wide,
            no_headers: self.no_headers.unwrap_or(false),
        }
    }
}

/// A form of output.
#[derive(Clone, Debug)]
pub enum OutputFormat {
    /// The table.
    Table,
    /// The table with all its columns.
    Wide,
    /// JSON, keys sorted, four spaces.
    Json,
    /// YAML, keys sorted.
    Yaml,
    /// `kind/name`, one a line.
    Name,
    /// kubectl's JSONPath templates.
    JsonPath(Template),
    /// A table of the user's own columns.
    CustomColumns(CustomColumns),
}

impl OutputFormat {
    /// Reads the value of `-o`. Files that it names are read here.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (name, argument) = text
            .split_once('=')
            .map_or((text, None), |(name, argument)| (name, Some(argument)));
        match (name, argument) {
            ("", None) => Ok(Self::Table),
            ("wide", None) => Ok(Self::Wide),
            ("json", None) => Ok(Self::Json),
            ("yaml", None) => Ok(Self::Yaml),
            ("name", None) => Ok(Self::Name),
            ("jsonpath", template) => Ok(Self::JsonPath(Template::parse(needed(template, "template", name)?)?)),
            ("jsonpath-file", file) => {
                let file = needed(file, "template", name)?;
                let text = std::fs::read_to_string(Path::new(file))
                    .map_err(|error| Error::failed(format!("error reading --template {file}, {}", io_words(&error))))?;
                Ok(Self::JsonPath(Template::parse(&text)?))
            }
            ("custom-columns", spec) => Ok(Self::CustomColumns(CustomColumns::parse(needed(
                spec,
                "custom columns",
                name,
            )?)?)),
            _ => Err(Error::failed(format!(
                "unable to match a printer suitable for the output format \"{text}\", allowed formats are: {ALLOWED}"
            ))),
        }
    }

    /// Whether it is machine-readable.
    pub fn is_structured(&self) -> bool {
        !matches!(self, Self::Table | Self::Wide)
    }
}

fn needed<'a>(argument: Option<&'a str>, what: &str, format: &str) -> Result<&'a str, Error> {
    argument
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Error::failed(format!("{what} format specified but no {what} given: -o {format}=…")))
}

/// Something a verb prints: one row of its list.
///
/// `Serialize` is its machine form, without secrets.
pub trait Printable: Serialize {
    /// The columns of the table.
    const COLUMNS: &'static [Column];

    /// The cells, one for each column. Existing text is borrowed, since lists may be long.
    fn cells(&self) -> Vec<Cow<'_, str>>;

    /// `kind/name`, with the group after the kind where there is one: `certificate.cert-manager.io/x`.
    fn name(&self) -> String;
}

/// What the list is called in JSON and YAML: a versioned kind of our own.
#[derive(Clone, Copy, Debug)]
pub struct ListKind {
    /// `apiVersion`
    pub api_version: &'static str,
    /// `kind`
    pub kind: &'static str,
}

/// Prints a list. If it is empty, a table is replaced by `none` on stderr: `No resources found in x namespace.`
pub fn print_list<T: Printable>(
    ui: &Ui,
    flags: &OutputFlags,
    of: ListKind,
    items: &[T],
    none: &str,
) -> Result<(), Error> {
    let format = flags.format()?;
    let sort = flags.sort_by.as_deref().filter(|path| !path.is_empty());
    let values = match sort {
        Some(path) => Some(sort::order(items, path)?),
        None => None,
    };
    let ordered: Vec<&T> = match &values {
        Some(order) => order.iter().map(|&at| &items[at]).collect(),
        None => items.iter().collect(),
    };
    match format {
        OutputFormat::Table | OutputFormat::Wide => {
            if items.is_empty() {
                ui.status(none);
                return Ok(());
            }
            let mut table = Table::new(T::COLUMNS);
            for item in ordered {
                table.row(item.cells());
            }
            ui.write_out(&table.render(flags.look(matches!(format, OutputFormat::Wide))));
            Ok(())
        }
        OutputFormat::Name => {
            ui.write_out(&ordered.iter().map(|item| item.name() + "\n").collect::<String>());
            Ok(())
        }
        format => {
            let items = ordered
                .iter()
                .map(serde_json::to_value)
                .collect::<Result<Vec<Value>, _>>()
                .map_err(unprintable)?;
            let list = json!({ "apiVersion": of.api_version, "kind": of.kind, "items": items, "metadata": {} });
            write(ui, flags, &format, &list)
        }
    }
}

/// Prints one object: its JSON, YAML, name, JSONPath or columns, or a table of one row.
pub fn print_object<T: Printable>(ui: &Ui, flags: &OutputFlags, object: &T) -> Result<(), Error> {
    match flags.format()? {
        format @ (OutputFormat::Table | OutputFormat::Wide) => {
            let mut table = Table::new(T::COLUMNS);
            table.row(object.cells());
            ui.write_out(&table.render(flags.look(matches!(format, OutputFormat::Wide))));
            Ok(())
        }
        OutputFormat::Name => {
            ui.out(object.name());
            Ok(())
        }
        format => write(ui, flags, &format, &serde_json::to_value(object).map_err(unprintable)?),
    }
}

/// Prints a value in a machine-readable format. Tables and names are rejected.
pub fn print_value(ui: &Ui, flags: &OutputFlags, value: &impl Serialize) -> Result<(), Error> {
    write(
        ui,
        flags,
        &flags.format()?,
        &serde_json::to_value(value).map_err(unprintable)?,
    )
}

fn write(ui: &Ui, flags: &OutputFlags, format: &OutputFormat, value: &Value) -> Result<(), Error> {
    let text = match format {
        OutputFormat::Json => to_json(value)?,
        OutputFormat::Yaml => to_yaml(value)?,
        OutputFormat::JsonPath(template) => template.render(value)?,
        OutputFormat::CustomColumns(columns) => columns.render(value, flags.look(true))?,
        OutputFormat::Table | OutputFormat::Wide | OutputFormat::Name => {
            return Err(Error::usage(
                "this prints as json, yaml, jsonpath or custom-columns only",
            ));
        }
    };
    ui.write_out(&text);
    Ok(())
}

/// JSON as kubectl prints it: keys sorted, four spaces, a line end.
pub(crate) fn to_json(value: &Value) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).map_err(unprintable)?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|_| Error::failed("the result is not text"))
}

/// YAML as kubectl prints it: keys sorted, words that YAML 1.1 would misread are quoted.
pub fn to_yaml(value: &Value) -> Result<String, Error> {
    let mut text = serde_saphyr::to_string(value).map_err(|_| Error::failed("the result cannot be written as YAML"))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// `serde_json`'s message could quote a value.
fn unprintable(_: serde_json::Error) -> Error {
    Error::failed("the result cannot be written as JSON")
}

#[cfg(test)]
mod tests;
