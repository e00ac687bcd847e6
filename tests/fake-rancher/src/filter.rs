//! Filters responses that span namespaces, so that a client of one cluster does not see the agents of others.

use serde_json::Value;

use crate::world::{AGENT_NAMESPACE, agent_namespace};

/// Removes the agents of other clusters from responses that span namespaces. A list is filtered as a whole, a watch
/// line by line.
pub(crate) struct Filter {
    other: String,
    own: String,
    by_line: bool,
    held: Vec<u8>,
}

impl Filter {
    pub(crate) fn new(id: &str, by_line: bool) -> Self {
        Self {
            other: format!("{AGENT_NAMESPACE}-c-"),
            own: agent_namespace(id),
            by_line,
            held: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(chunk);
        let mut out = Vec::new();
        while self.by_line
            && let Some(end) = self.held.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = self.held.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap_or_default();
            if !self.is_other(&event["object"]) {
                out.extend(line);
            }
        }
        out
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        let Ok(mut list) = serde_json::from_slice::<Value>(&held) else {
            return held;
        };
        for key in ["items", "rows"] {
            // Not by index: that would put an empty `items` into a table, and make a list of it.
            if let Some(items) = list.get_mut(key).and_then(Value::as_array_mut) {
                items.retain(|item| !self.is_other(item) && !self.is_other(&item["object"]));
            }
        }
        list.to_string().into_bytes()
    }

    fn is_other(&self, object: &Value) -> bool {
        let is = |key: &str| {
            let name = object["metadata"][key].as_str().unwrap_or_default();
            name.starts_with(&self.other) && name != self.own
        };
        is("namespace") || is("name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_over_all_namespaces_shows_one_cluster_only() {
        let mut filter = Filter::new("c-aaaaa", false);
        let list = json!({"items": [
            {"metadata": {"namespace": "cattle-system-c-aaaaa"}}, {"metadata": {"namespace": "cattle-system-c-bbbbb"}},
            {"metadata": {"namespace": "default"}},
        ]});
        assert!(filter.push(list.to_string().as_bytes()).is_empty());
        let left: Value = serde_json::from_slice(&filter.finish()).unwrap();
        assert_eq!(left["items"].as_array().unwrap().len(), 2);
        assert!(left.get("rows").is_none());
    }

    #[test]
    fn a_watch_is_filtered_line_by_line() {
        let mut filter = Filter::new("c-aaaaa", true);
        let other = json!({"type": "ADDED", "object": {"metadata": {"name": "cattle-system-c-bbbbb"}}});
        let own = json!({"type": "ADDED", "object": {"metadata": {"name": "cattle-system-c-aaaaa"}}});
        let out = filter.push(format!("{other}\n{own}\n").as_bytes());
        assert_eq!(out, format!("{own}\n").into_bytes());
    }
}
