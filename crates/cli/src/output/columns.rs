//! `-o custom-columns=NAME:.metadata.name,…`: a table of the user's own columns.

use client::error::Error;
use serde_json::Value;

use super::jsonpath::{Template, plain};
use crate::table::{Look, Table};

/// Parsed `custom-columns`.
#[derive(Clone, Debug)]
pub struct CustomColumns(Vec<(String, Template)>);

impl CustomColumns {
    /// Reads `HEADER:PATH,HEADER:PATH`.
    pub fn parse(spec: &str) -> Result<Self, Error> {
        let columns = spec.split(',').map(|part| {
            let (header, path) = part
                .split_once(':')
                .filter(|(_, path)| !path.is_empty())
                .ok_or_else(|| {
                    Error::failed(format!(
                        "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                    ))
                })?;
            Ok((header.to_owned(), Template::expression(path)?))
        });
        columns.collect::<Result<_, Error>>().map(Self)
    }

    /// The table: one row per item of a list, or one for an object.
    pub(super) fn render(&self, value: &Value, look: Look) -> Result<String, Error> {
        let mut table = Table::with_headers(self.0.iter().map(|(header, _)| (header.clone(), false)).collect());
        let items = value.get("items").and_then(Value::as_array);
        for item in items.map_or(std::slice::from_ref(value), Vec::as_slice) {
            let cells: Result<Vec<String>, Error> = self.0.iter().map(|(_, path)| cell(path, item)).collect();
            table.row(cells?);
        }
        Ok(table.render(look))
    }
}

fn cell(path: &Template, item: &Value) -> Result<String, Error> {
    let found = path.find(item)?;
    Ok(if found.is_empty() {
        "<none>".into()
    } else {
        found.into_iter().map(plain).collect::<Vec<_>>().join(",")
    })
}
