//! `PUT /v1-<program>/token`: `pkg/server/handlers/token.go` and `pkg/cluster/storage.go` of v1.36.3+k3s1. The order of
//! its effects: `cred/passwd`, `server/token`, the key of the datastore, the save of this server's files.

use anyhow::{Result, anyhow};
use serde_json::Value;

use crate::config::Line;
use crate::datastore::{Contents, Datastore, Sealed};
use crate::faults::Step;
use crate::serve::{Phase, Server, die};
use crate::token::{hash12, normalize};

/// How the PUT ends.
pub(crate) enum Put {
    /// 200. With a planned kill the server ends after the answer.
    Done { kill: bool },
    /// 400 with this text.
    Malformed(String),
    /// The handler panics: the connection is closed.
    Panic,
    /// 500. The reason stands only in the log.
    Failed(anyhow::Error),
}

/// Handles the body of an authenticated request.
pub(crate) fn put(server: &Server, body: &[u8], kill: Option<Step>) -> Put {
    let request: Value = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return Put::Malformed(error.to_string()),
    };
    let Some(fields) = request.as_object() else {
        return Put::Malformed("json: cannot unmarshal into Go value of type handlers.TokenRotateRequest".into());
    };
    match fields.get("newToken") {
        None | Some(Value::Null) => Put::Panic,
        Some(Value::String(token)) => match rotate(server, token, kill) {
            Ok(()) => Put::Done {
                kill: kill == Some(Step::AfterAnswer),
            },
            Err(error) => Put::Failed(error),
        },
        Some(_) => Put::Malformed("json: cannot unmarshal into Go struct field .newToken of type string".into()),
    }
}

fn rotate(server: &Server, new_token: &str, kill: Option<Step>) -> Result<()> {
    // Two requests on the same server do not interleave.
    let mut token = server.token();
    let kill_at = |step: Step| {
        if kill == Some(step) {
            die();
        }
    };
    let mut new = match new_token {
        "" => crate::random_hex(),
        value => value.to_owned(),
    };
    if server.node.config.line == Line::Current {
        new = normalize(&new).map_err(anyhow::Error::msg)?.to_owned();
    }
    let program = server.node.program();
    let mut passwd = server.files.passwd();
    let old = passwd
        .password("server")
        .ok_or_else(|| anyhow!("server token not found"))?
        .to_owned();
    passwd.ensure("server", &format!("{program}:server"), &new);
    if passwd.password("node") == Some(&old) && server.settings.agent_token.is_none() {
        passwd.ensure("node", &format!("{program}:agent"), &new);
    }
    server.files.write_passwd(&passwd)?;
    kill_at(Step::AfterPasswd);
    if kill == Some(Step::InToken) {
        server.files.truncate_token()?;
        die();
    }
    server
        .files
        .write_token(&server.ca_hash, &new, server.settings.agent_token.as_deref())?;
    kill_at(Step::AfterToken);

    if server.phase() < Phase::Etcd {
        return Err(anyhow!("etcdclient: no available endpoints"));
    }
    let nodes = server.node.all();
    let store = Datastore::of(&server.node);
    let reachable = || server.node.is_sqlite() || store.has_quorum(&nodes);
    if !reachable() {
        return Err(anyhow!("context deadline exceeded"));
    }
    // The file is read back trimmed.
    let written = server.files.token().unwrap_or_default();
    let before = store.read();
    store
        .change(&nodes, None, |contents| contents.rotate_key(&old, &written))?
        .map_err(anyhow::Error::msg)?;
    if kill == Some(Step::AfterKey) {
        leave_behind(server, &before, &written)?;
        die();
    }
    new.clone_into(&mut token);
    let files = server.files.bundle();
    store
        .change(&nodes, None, |contents| contents.save(&new, files))?
        .map_err(anyhow::Error::msg)?;
    kill_at(Step::AfterSave);
    if kill == Some(Step::AfterAnswer) {
        leave_behind(server, &before, &written)?;
    }
    Ok(())
}

/// The server's own copy has the content before the save below both keys.
fn leave_behind(server: &Server, before: &Contents, new: &str) -> Result<()> {
    let mut copy = before.clone();
    if let Some(old) = copy.bootstrap.values().next().cloned() {
        let password = new.to_owned();
        copy.bootstrap.insert(hash12(new), Sealed { password, ..old });
    }
    if server.node.is_sqlite() {
        // The datastore itself is what the killed process left.
        return Datastore::of(&server.node).change(&[], None, |contents| contents.bootstrap = copy.bootstrap);
    }
    server.stop_sync();
    Datastore::of(&server.node).set_back(&server.files.own_copy(), &copy)
}
