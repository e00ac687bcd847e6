//! The state of the cluster for assertions. Passwords appear as fingerprints only.

use std::time::UNIX_EPOCH;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::datastore::{Contents, Datastore};
use crate::files::{Bundle, PASSWD, ServerFiles};
use crate::manager::{Manager, files};
use crate::node::Node;
use crate::passwd::Passwd;
use crate::settings::Settings;
use crate::token::{hash12, normalize};
use crate::unit::UnitHandle;

/// The lines at the end of a log that are shown.
const LINES: usize = 40;

pub(crate) fn all(manager: &Manager) -> Result<Value> {
    let units = manager.units();
    let mut servers = Map::new();
    for unit in &units {
        servers.insert(unit.node.server.name.clone(), server(unit)?);
    }
    let nodes: Vec<Node> = units.iter().map(|unit| unit.node.clone()).collect();
    let Some(first) = nodes.first() else {
        return Ok(json!({}));
    };
    let store = Datastore::of(first);
    let contents = store.read();
    let mut datastore = contents_of(&contents);
    datastore["members"] = json!(contents.members.keys().collect::<Vec<_>>());
    datastore["quorum"] = json!(store.has_quorum(&nodes));
    datastore["snapshots"] = json!(contents.snapshots);
    Ok(json!({"servers": servers, "datastore": datastore}))
}

fn server(unit: &UnitHandle) -> Result<Value> {
    let node = &unit.node;
    let settings = Settings::of(node)?;
    let server_files = files(node)?;
    let running = std::fs::read_to_string(node.run_dir().join("state.json")).ok();
    let mut value: Value = running
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_else(|| json!({"phase": "down", "live": null}));
    let password = |token: &str| hash12(normalize(token).unwrap_or(token));
    let copy = Datastore::read_copy(&server_files.own_copy());
    value["address"] = json!(node.server.address);
    value["port"] = json!(node.port());
    value["apiPort"] = json!(node.api_port());
    value["unit"] = json!(unit.state());
    value["configured"] = json!(settings.token.as_deref().map(password));
    value["files"] = of_files(&server_files);
    value["copy"] = copy.as_ref().map_or(Value::Null, contents_of);
    value["faults"] = json!(node.faults());
    value["log"] = json!(log(node));
    Ok(value)
}

fn of_files(files: &ServerFiles) -> Value {
    let mut all = bundle(&files.bundle());
    let modified = |file: &std::fs::Metadata| {
        file.modified()
            .ok()?
            .duration_since(UNIX_EPOCH)
            .ok()
            .map(|d| d.as_secs())
    };
    if let Ok(file) = files.token_file().metadata() {
        let token = files.token().unwrap_or_default();
        let fingerprint = (!token.is_empty()).then(|| hash12(&token));
        all["token"] = json!({"fingerprint": fingerprint, "modified": modified(&file)});
    }
    all
}

fn contents_of(contents: &Contents) -> Value {
    let keys: Vec<&String> = contents.bootstrap.keys().collect();
    let files = contents.bootstrap.values().next().map(|sealed| bundle(&sealed.files));
    json!({"keys": keys, "files": files})
}

fn bundle(bundle: &Bundle) -> Value {
    let files = bundle.iter().map(|(name, copy)| {
        let mut value = json!({"bytes": hash12(&copy.content), "modified": copy.modified});
        if name == PASSWD {
            let passwd = Passwd::parse(&copy.content);
            for user in ["server", "node"] {
                value[user] = json!(passwd.password(user).map(hash12));
            }
        }
        (name.clone(), value)
    });
    Value::Object(files.collect())
}

fn log(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(node.log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    lines[from..].iter().map(|line| (*line).to_owned()).collect()
}

/// The requests of all servers, in the order of their answers.
pub(crate) fn requests(manager: &Manager) -> Result<Value> {
    let mut all: Vec<Value> = Vec::new();
    for unit in manager.units() {
        let text = std::fs::read_to_string(unit.node.requests()).unwrap_or_default();
        // The last line may be incomplete.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        for line in whole.lines() {
            all.push(serde_json::from_str(line)?);
        }
    }
    all.sort_by(|a, b| a["at"].as_str().cmp(&b["at"].as_str()));
    Ok(Value::Array(all))
}
