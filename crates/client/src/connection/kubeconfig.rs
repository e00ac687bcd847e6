//! Finds, reads and merges kubeconfig files as client-go does. kube rejects other files than client-go.
//!
//! (kubernetes/client-go v0.33, `tools/clientcmd/loader.go`.)

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kube::config::{AuthInfo, Cluster, Context, Kubeconfig};

use super::environment::Environment;
use crate::error::{Error, io_words};
use crate::yaml;

/// All kubeconfig files merged. For each name the first file wins. Paths are relative to their file.
/// It is not `Debug`, because the variables of a plugin and the settings of a provider may contain credentials.
#[derive(Clone, Default)]
pub(super) struct Merged {
    pub(super) current_context: Option<String>,
    pub(super) contexts: Vec<(String, Context)>,
    pub(super) clusters: Vec<(String, Cluster)>,
    pub(super) users: Vec<(String, AuthInfo)>,
}

impl Merged {
    /// Reads `explicit` (`--kubeconfig`), else the files of `KUBECONFIG`, else `~/.kube/config`. A missing file is
    /// skipped, except that of the flag.
    pub(super) fn load(explicit: Option<&Path>, environment: &Environment) -> Result<Self, Error> {
        let mut merged = Self::default();
        for file in candidates(explicit, environment) {
            match read_file(&file) {
                Ok(bytes) => merged.add(parse(&file, &bytes)?, &file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => {}
                Err(error) => {
                    return Err(Error::failed(format!(
                        "cannot read kubeconfig {}: {}",
                        file.display(),
                        io_words(&error)
                    )));
                }
            }
        }
        Ok(merged)
    }

    fn add(&mut self, file: Kubeconfig, path: &Path) {
        let directory = path.parent().unwrap_or(Path::new(""));
        if self.current_context.is_none() {
            self.current_context = non_empty(file.current_context);
        }
        for named in file.contexts {
            first_wins(&mut self.contexts, named.name, named.context.unwrap_or_default());
        }
        for named in file.clusters {
            let mut cluster = named.cluster.unwrap_or_default();
            anchor(directory, &mut cluster.certificate_authority);
            first_wins(&mut self.clusters, named.name, cluster);
        }
        for named in file.auth_infos {
            let mut user = named.auth_info.unwrap_or_default();
            for path in [&mut user.client_certificate, &mut user.client_key, &mut user.token_file] {
                anchor(directory, path);
            }
            if let Some(exec) = &mut user.exec {
                anchor_command(directory, &mut exec.command);
            }
            first_wins(&mut self.users, named.name, user);
        }
    }
}

/// Pipes that were read. Each, as of `--kubeconfig <(…)`, can be read only once, but a command with two contexts loads the
/// file twice.
static PIPES: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::new(BTreeMap::new());

fn read_file(file: &Path) -> std::io::Result<Vec<u8>> {
    if std::fs::metadata(file)?.is_file() {
        return std::fs::read(file);
    }
    let mut pipes = PIPES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = pipes.get(file) {
        return Ok(bytes.clone());
    }
    let bytes = std::fs::read(file)?;
    pipes.insert(file.to_owned(), bytes.clone());
    Ok(bytes)
}

fn candidates(explicit: Option<&Path>, environment: &Environment) -> Vec<PathBuf> {
    if let Some(file) = explicit {
        return vec![file.to_owned()];
    }
    if let Some(list) = environment.variable("KUBECONFIG") {
        let mut seen = HashSet::new();
        return std::env::split_paths(list)
            .filter(|file| !file.as_os_str().is_empty() && seen.insert(file.clone()))
            .collect();
    }
    environment
        .home()
        .map(|home| home.join(".kube/config"))
        .into_iter()
        .collect()
}

/// Errors contain only the position: the text there may be a credential.
fn parse(file: &Path, bytes: &[u8]) -> Result<Kubeconfig, Error> {
    let text = decode(bytes).ok_or_else(|| {
        Error::failed(format!(
            "error loading config file \"{}\": it is not text",
            file.display()
        ))
    })?;
    if text.trim().is_empty() {
        return Ok(Kubeconfig::default());
    }
    let parsed: Option<Kubeconfig> = yaml::from_str(&text)
        .map_err(|invalid| Error::failed(format!("error loading config file \"{}\": {invalid}", file.display())))?;
    let parsed = parsed.unwrap_or_default();
    let duplicate = first_duplicate(parsed.clusters.iter().map(|named| &named.name)).map(|name| ("cluster", name));
    let duplicate = duplicate
        .or_else(|| first_duplicate(parsed.auth_infos.iter().map(|named| &named.name)).map(|name| ("user", name)))
        .or_else(|| first_duplicate(parsed.contexts.iter().map(|named| &named.name)).map(|name| ("context", name)));
    match duplicate {
        Some((what, name)) => Err(Error::failed(format!(
            "error loading config file \"{}\": duplicate {what} \"{name}\"",
            file.display()
        ))),
        None => Ok(parsed),
    }
}

fn first_duplicate<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = HashSet::new();
    names.find(|name| !seen.insert(*name))
}

/// UTF-8 with or without a byte order mark; UTF-16 with one (Windows PowerShell writes it).
fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |read: fn([u8; 2]) -> u16, bytes: &[u8]| {
        String::from_utf16(
            &bytes
                .chunks_exact(2)
                .map(|pair| read([pair[0], pair[1]]))
                .collect::<Vec<_>>(),
        )
        .ok()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => utf16(u16::from_be_bytes, rest),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(bytes.to_vec()).ok(),
    }
}

fn first_wins<T>(list: &mut Vec<(String, T)>, name: String, value: T) {
    if !list.iter().any(|(known, _)| *known == name) {
        list.push((name, value));
    }
}

fn anchor(directory: &Path, path: &mut Option<String>) {
    if let Some(relative) = path.as_deref().filter(|path| !path.is_empty()) {
        *path = Some(directory.join(relative).to_string_lossy().into_owned());
    }
}

/// A command with a slash is a path relative to the kubeconfig; a bare word is looked up in `PATH`.
fn anchor_command(directory: &Path, command: &mut Option<String>) {
    if command
        .as_deref()
        .is_some_and(|command| command.contains(std::path::MAIN_SEPARATOR))
    {
        anchor(directory, command);
    }
}

/// An empty value counts as absent.
pub(super) fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
