//! Secrets-encryption as far as a token rotation meets it: two files that are saved together with `cred/passwd`, a stage
//! and a hash that the servers compare, and the key that all Secrets are encrypted with.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::datastore::{Contents, Datastore};
use crate::files::{ENCRYPTION_CONFIG, ENCRYPTION_STATE, ServerFiles};
use crate::node::Node;
use crate::token::sha256_hex;

/// The files of a server.
struct Encryption {
    stage: String,
    /// Names and secrets, the active one first.
    keys: Vec<(String, String)>,
}

impl Encryption {
    fn read(files: &ServerFiles) -> Option<Self> {
        let file = |name: &str| -> Option<Value> {
            serde_json::from_str(&std::fs::read_to_string(files.dir.join(name)).ok()?).ok()
        };
        let config = file(ENCRYPTION_CONFIG)?;
        let keys = config["resources"][0]["providers"][0]["aescbc"]["keys"].as_array()?;
        let key = |key: &Value| Some((key["name"].as_str()?.to_owned(), key["secret"].as_str()?.to_owned()));
        let stage = file(ENCRYPTION_STATE).and_then(|state| Some(state["stage"].as_str()?.to_owned()));
        Some(Self {
            stage: stage.unwrap_or_else(|| "start".into()),
            keys: keys.iter().filter_map(key).collect(),
        })
    }

    fn config(&self) -> String {
        let key = |(name, secret): &(String, String)| json!({"name": name, "secret": secret});
        json!({
            "kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
            "resources": [{"resources": ["secrets"], "providers": [
                {"aescbc": {"keys": self.keys.iter().map(key).collect::<Vec<_>>()}}, {"identity": {}},
            ]}],
        })
        .to_string()
    }

    fn write(&self, files: &ServerFiles) -> Result<()> {
        files.write(ENCRYPTION_CONFIG, &self.config())?;
        files.write(ENCRYPTION_STATE, &json!({"stage": self.stage}).to_string())
    }

    /// What the servers compare.
    fn hash(&self) -> String {
        format!("{}-{}", self.stage, sha256_hex(self.config().as_bytes()))
    }
}

fn new_key() -> (String, String) {
    let secret = crate::random_hex();
    (format!("aescbckey-{}", &secret[..8]), secret)
}

/// The files of a new cluster.
pub(crate) fn create(files: &ServerFiles) -> Result<()> {
    let encryption = Encryption {
        stage: "start".into(),
        keys: vec![("aescbckey".into(), crate::random_hex())],
    };
    encryption.write(files)
}

/// Says which stage and hash this server has, as it does with an annotation.
pub(crate) fn publish(node: &Node, files: &ServerFiles) -> Result<()> {
    let Some(encryption) = Encryption::read(files) else {
        return Ok(());
    };
    let nodes = node.all();
    Datastore::of(node).change(&nodes, None, |contents| {
        contents.encryption.insert(node.server.name.clone(), encryption.hash());
        if contents.secrets_key.is_none() {
            contents.secrets_key = encryption.keys.first().map(|(_, secret)| secret.clone());
        }
    })
}

/// Whether this server can read the Secrets of the cluster.
pub(crate) fn can_read_secrets(files: &ServerFiles, contents: &Contents) -> bool {
    let Some(needed) = &contents.secrets_key else {
        return true;
    };
    Encryption::read(files).is_some_and(|encryption| encryption.keys.iter().any(|(_, secret)| secret == needed))
}

/// `GET encrypt/status`.
pub(crate) fn status(node: &Node, files: &ServerFiles, contents: &Contents) -> Value {
    let Some(encryption) = Encryption::read(files) else {
        return json!({"stage": "", "activekey": ""});
    };
    let name = |(name, _): &(String, String)| format!("AES-CBC {name}");
    let mut keys = encryption.keys.iter().map(name);
    let mut status = json!({"stage": encryption.stage, "activekey": keys.next(), "enable": true});
    let inactive: Vec<String> = keys.collect();
    if !inactive.is_empty() {
        status["inactivekeys"] = json!(inactive);
    }
    let me = &node.server.name;
    let hash = encryption.hash();
    match contents
        .encryption
        .iter()
        .find(|(other, theirs)| *other != me && **theirs != hash)
    {
        None => status["hashmatch"] = json!(true),
        Some((other, _)) => {
            let (first, second) = if me < other { (me, other) } else { (other, me) };
            status["hasherror"] = json!(format!("hash does not match between {first} and {second}"));
        }
    }
    status
}

/// `secrets-encrypt` on one server, up to this stage: `prepare` adds a key, `rotate_keys` replaces the key and encrypts
/// all Secrets with the new one, anything else is only the name of a stage. The server saves its files.
pub(crate) fn advance(node: &Node, files: &ServerFiles, stage: &str) -> Result<()> {
    let mut encryption = Encryption::read(files).context("secrets-encryption is off")?;
    match stage {
        "prepare" => encryption.keys.push(new_key()),
        "rotate_keys" => encryption.keys = vec![new_key()],
        _ => {}
    }
    encryption.stage = match stage {
        "rotate_keys" => "reencrypt_finished".into(),
        stage => stage.into(),
    };
    encryption.write(files)?;
    let token = files.token().unwrap_or_default();
    let nodes = node.all();
    Datastore::of(node)
        .change(&nodes, None, |contents| {
            if stage == "rotate_keys" {
                contents.secrets_key = encryption.keys.first().map(|(_, secret)| secret.clone());
            }
            contents.save(&token, files.bundle())
        })?
        .map_err(anyhow::Error::msg)?;
    publish(node, files)
}
