//! `--sort-by`: a JSONPath expression gives each item its key; numbers and times sort as such, texts as kubectl sorts them.

use std::cmp::Ordering;

use client::error::Error;
use serde::Serialize;
use serde_json::Value;

use super::jsonpath::Template;

/// The order of the items by the value at `path`; those without one come first.
pub(super) fn order<T: Serialize>(items: &[T], path: &str) -> Result<Vec<usize>, Error> {
    let path = Template::expression(path)?;
    let mut keys: Vec<(usize, Option<Value>)> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let value = serde_json::to_value(item).map_err(super::unprintable)?;
        keys.push((at, path.find(&value)?.into_iter().next().cloned()));
    }
    if !items.is_empty() && keys.iter().all(|(_, key)| key.is_none()) {
        return Err(Error::failed(
            "couldn't find any field with the path given to --sort-by in the list of objects",
        ));
    }
    keys.sort_by(|(_, a), (_, b)| compare(a.as_ref(), b.as_ref()));
    Ok(keys.into_iter().map(|(at, _)| at).collect())
}

fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(a)), Some(Value::String(b))) => natural(a, b),
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (None | Some(Value::Null), None | Some(Value::Null)) => Ordering::Equal,
        (None | Some(Value::Null), _) => Ordering::Less,
        (_, None | Some(Value::Null)) => Ordering::Greater,
        (Some(a), Some(b)) => a.to_string().cmp(&b.to_string()),
    }
}

/// `node-9` before `node-10`: runs of digits compare as numbers. (fvbommel/sortorder, as used by kubectl.)
fn natural(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let (Some(first), Some(second)) = (one.chars().next(), other.chars().next()) else {
            return one.len().cmp(&other.len());
        };
        if first.is_ascii_digit() && second.is_ascii_digit() {
            let ((left, after_left), (right, after_right)) = (digits(one), digits(other));
            let order = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
            if order != Ordering::Equal {
                return order;
            }
            (one, other) = (after_left, after_right);
        } else if first == second {
            (one, other) = (&one[first.len_utf8()..], &other[second.len_utf8()..]);
        } else {
            return first.cmp(&second);
        }
    }
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].trim_start_matches('0'), &text[end..])
}
