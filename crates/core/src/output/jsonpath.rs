//! kubectl's JSONPath templates.

use serde_json::Value;

use crate::error::Error;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template(Vec<String>);

impl Template {
    /// Reads a template: text with expressions in braces.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self(vec![text.to_owned()]))
    }

    /// Reads a single expression, in braces or without, with a leading dot or without.
    pub fn expression(text: &str) -> Result<Self, Error> {
        Ok(Self(vec![text.to_owned()]))
    }

    /// The text that the template makes of a value.
    pub fn render(&self, value: &Value) -> Result<String, Error> {
        Ok(value.to_string())
    }

    /// The values that a single expression finds.
    pub(super) fn find(&self, _value: &Value) -> Result<Vec<Value>, Error> {
        Ok(Vec::new())
    }
}

pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
