//! What a server reads at its start: the unit's arguments, its environment, `config.yaml` and `config.yaml.d`, the
//! token file. Precedence (seen on v1.36.3+k3s1): token file, then flag, then `config.yaml.d`, then `config.yaml`, then
//! environment; without any of them `server/token`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::config::Distribution;
use crate::node::Node;

/// A unit file as systemd has loaded it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    /// `ExecStart`, split into words.
    pub(crate) command: Vec<String>,
    /// `Environment`.
    pub(crate) environment: BTreeMap<String, String>,
    /// `EnvironmentFile`, and whether it may be missing.
    pub(crate) environment_files: Vec<(PathBuf, bool)>,
    /// `Restart=no`, by a drop-in.
    pub(crate) starts_once: bool,
}

impl Unit {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut unit = Self::default();
        for line in text.replace("\\\n", " ").lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            match key.trim() {
                "ExecStart" => unit.command = words(value),
                "Environment" => unit
                    .environment
                    .extend(words(value).iter().filter_map(|word| assignment(word))),
                "Restart" => unit.starts_once = value.trim() == "no",
                "EnvironmentFile" => {
                    let path = value.trim();
                    let optional = path.strip_prefix('-');
                    unit.environment_files
                        .push((optional.unwrap_or(path).into(), optional.is_some()));
                }
                _ => {}
            }
        }
        if unit.command.is_empty() {
            bail!("the unit has no ExecStart");
        }
        Ok(unit)
    }

    /// The unit of a node, with its drop-ins.
    pub(crate) fn load(node: &Node) -> Result<Self> {
        let mut text = std::fs::read_to_string(node.unit_file())?;
        for file in node.drop_ins() {
            text.push_str(&std::fs::read_to_string(file)?);
        }
        Self::parse(&text)
    }

    /// The variables of the process. Environment files are read at each start.
    pub(crate) fn variables(&self) -> Result<BTreeMap<String, String>> {
        let mut variables = self.environment.clone();
        for (path, optional) in &self.environment_files {
            match std::fs::read_to_string(path) {
                Ok(text) => {
                    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
                    variables.extend(lines.filter_map(|line| assignment(&words(line).join(" "))));
                }
                Err(_) if *optional => {}
                Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
            }
        }
        Ok(variables)
    }
}

fn assignment(word: &str) -> Option<(String, String)> {
    let (key, value) = word.split_once('=')?;
    Some((key.trim().to_owned(), value.to_owned()))
}

/// Splits as systemd and a shell do, without expansions.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The configuration of one start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Flags and configuration files, merged, under the long names of the flags.
    merged: Map<String, Value>,
    variables: BTreeMap<String, String>,
    /// The configured server token, as it stands there.
    pub(crate) token: Option<String>,
    pub(crate) agent_token: Option<String>,
    /// The URL of the join server.
    pub(crate) server: Option<String>,
    pub(crate) data_dir: PathBuf,
    pub(crate) disable_etcd: bool,
    pub(crate) encryption: bool,
}

impl Settings {
    /// `arguments` are those of the unit, `server` and flags.
    pub(crate) fn read(node: &Node, arguments: &[String], variables: BTreeMap<String, String>) -> Result<Self> {
        let flags = flags(arguments);
        let prefix = Distribution::environment(node.distribution());
        let variable = |name: &str| variables.get(&format!("{prefix}_{name}")).cloned();
        let config = flags
            .get("config")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| variable("CONFIG_FILE"))
            .map_or_else(|| node.config_file(), PathBuf::from);
        let mut merged = read_config(&config)?;
        merged.extend(flags);
        let text = |key: &str, name: &str| text(merged.get(key)).or_else(|| variable(name));
        let from_file = |path: Option<String>| -> Result<Option<String>> {
            let Some(path) = path else { return Ok(None) };
            let content = std::fs::read_to_string(&path).with_context(|| format!("read token file {path}"))?;
            Ok(Some(content.trim().to_owned()))
        };
        let truth = |key: &str| merged.get(key).is_some_and(|v| v == &Value::Bool(true) || v == "true");
        Ok(Self {
            token: from_file(text("token-file", "TOKEN_FILE"))?.or_else(|| text("token", "TOKEN")),
            agent_token: from_file(text("agent-token-file", "AGENT_TOKEN_FILE"))?
                .or_else(|| text("agent-token", "AGENT_TOKEN")),
            server: text("server", "URL"),
            data_dir: text("data-dir", "DATA_DIR").map_or_else(|| node.default_data_dir(), PathBuf::from),
            disable_etcd: truth("disable-etcd"),
            encryption: truth("secrets-encryption"),
            merged,
            variables,
        })
    }

    /// Those that a start of the unit would read now.
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let unit = Unit::load(node)?;
        Self::read(node, &unit.command[1..], unit.variables()?)
    }

    /// The annotation `node-args`: flags and configuration files merged, secrets masked.
    pub(crate) fn node_args(&self, command: &str) -> String {
        let mut arguments = vec![command.to_owned()];
        for (key, value) in self.merged.iter().filter(|(key, _)| key.as_str() != "config") {
            arguments.push(format!("--{key}"));
            arguments.extend(masked(key, value));
        }
        Value::from(arguments).to_string()
    }

    /// The annotation `node-env`.
    pub(crate) fn node_env(&self, distribution: Distribution) -> String {
        let prefix = format!("{}_", distribution.environment());
        let own = self.variables.iter().filter(|(key, _)| key.starts_with(&prefix));
        let masked = own.map(|(key, value)| {
            let key_word = key.to_lowercase().replace('_', "-");
            let value = masked(
                key_word.trim_start_matches("k3s-").trim_start_matches("rke2-"),
                &Value::from(value.as_str()),
            );
            (key.clone(), Value::from(value.unwrap_or_default()))
        });
        Value::Object(masked.collect()).to_string()
    }
}

fn masked(key: &str, value: &Value) -> Option<String> {
    match key {
        "token" | "agent-token" => Some("********".to_owned()),
        _ => text(Some(value)),
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// `config.yaml`, then every `.yaml` and `.yml` in `config.yaml.d` in alphabetical order. The last one wins.
fn read_config(path: &Path) -> Result<Map<String, Value>> {
    let mut drop_in = path.as_os_str().to_owned();
    drop_in.push(".d");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&drop_in)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    files.sort();
    let mut merged = Map::new();
    for file in std::iter::once(path.to_owned()).chain(files) {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        if text.trim().is_empty() {
            continue;
        }
        let one: Map<String, Value> =
            serde_saphyr::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
        merged.extend(one);
    }
    Ok(merged)
}

/// `--key value`, `--key=value`, `--key`, and the short forms that K3s has.
fn flags(arguments: &[String]) -> Map<String, Value> {
    let mut flags = Map::new();
    let mut rest = arguments.iter().skip_while(|word| !word.starts_with('-')).peekable();
    while let Some(word) = rest.next() {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (word.as_str(), rest.next_if(|next| !next.starts_with('-')).cloned()),
        };
        let key = match key {
            "-t" => "token",
            "-s" => "server",
            "-c" => "config",
            "-d" => "data-dir",
            key => key.trim_start_matches('-'),
        };
        flags.insert(key.to_owned(), value.map_or(Value::Bool(true), Value::from));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_read_as_systemd_reads_it() {
        let text = "[Service]\nEnvironmentFile=-/nowhere/x\nEnvironment=\"A=1 2\" B=3\nExecStart=/bin/k3s \\\n  server \\\n  '--token' \\\n  'a b'\n";
        let unit = Unit::parse(text).unwrap();
        assert_eq!(unit.command, ["/bin/k3s", "server", "--token", "a b"]);
        let variables = unit.variables().unwrap();
        assert_eq!(variables.get("A").map(String::as_str), Some("1 2"));
        assert_eq!(variables.get("B").map(String::as_str), Some("3"));
    }

    #[test]
    fn flags_have_long_and_short_forms() {
        let words = [
            "server",
            "--token=x",
            "-s",
            "https://a:6443",
            "--disable-etcd",
            "--data-dir",
            "/d",
        ];
        let flags = flags(&words.map(str::to_owned));
        assert_eq!(flags["token"], "x");
        assert_eq!(flags["server"], "https://a:6443");
        assert_eq!(flags["disable-etcd"], true);
        assert_eq!(flags["data-dir"], "/d");
    }

    #[test]
    fn the_annotations_show_where_a_token_is_configured_and_not_the_token() {
        let mut settings = Settings::default();
        let words = ["server", "--token=secret", "--config=/c", "--server=https://a:6443"];
        settings.merged = flags(&words.map(str::to_owned));
        settings.variables = [("K3S_TOKEN", "secret"), ("K3S_URL", "https://a"), ("PATH", "/bin")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let arguments: Vec<String> = serde_json::from_str(&settings.node_args("server")).unwrap();
        assert_eq!(arguments[0], "server");
        for pair in [["--token", "********"], ["--server", "https://a:6443"]] {
            assert!(arguments.windows(2).any(|two| two == pair), "{arguments:?}");
        }
        let environment = settings.node_env(Distribution::K3s);
        assert_eq!(environment, r#"{"K3S_TOKEN":"********","K3S_URL":"https://a"}"#);
    }
}
