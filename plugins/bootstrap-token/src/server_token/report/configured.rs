//! Where the token of a server or an agent is configured: by what its last start has written into its Node, or by its files.

use node_access::{Configuration, PlaceKind, TokenPlace};
use serde::Serialize;
use supervisor::node::{StartConfiguration, TokenSource};

/// One place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfiguredSource {
    /// By the last start: `file`, `flag-or-config` or `environment`. By the files of the node: `file`, `flag`, `config` or
    /// `environment`.
    source: &'static str,
    /// Of the file that has the token or, by the files of the node, that configures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// The places in the order in which K3s obeys them. Empty: nowhere.
pub(crate) type Configured = Result<Vec<ConfiguredSource>, &'static str>;

impl From<&TokenSource> for ConfiguredSource {
    fn from(source: &TokenSource) -> Self {
        let (source, path) = match source {
            TokenSource::File(path) => ("file", Some(path.clone())),
            TokenSource::FlagOrConfig => ("flag-or-config", None),
            TokenSource::Environment => ("environment", None),
        };
        Self { source, path }
    }
}

impl From<&TokenPlace> for ConfiguredSource {
    fn from(place: &TokenPlace) -> Self {
        let path = Some(place.file.clone()).filter(|file| !file.is_empty());
        let (source, path) = match (&place.target, place.kind) {
            (Some(target), _) => ("file", Some(target.clone())),
            (None, PlaceKind::Args) => ("flag", path),
            (None, PlaceKind::Unit | PlaceKind::Env) => ("environment", path),
            (None, PlaceKind::Yaml) => ("config", path),
        };
        Self { source, path }
    }
}

impl std::fmt::Display for ConfiguredSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.path, self.source) {
            (Some(path), "config" | "environment") => f.write_str(path),
            (Some(path), "flag") => write!(f, "flag in {path}"),
            (Some(path), _) => write!(f, "file {path}"),
            (None, "flag") => f.write_str("flag"),
            (None, "flag-or-config") => f.write_str("flag or config file"),
            (None, source) => f.write_str(source),
        }
    }
}

/// Of the token, and of the separate token for agents.
pub(crate) fn of_start(start: &StartConfiguration) -> (Configured, Configured) {
    let all = |sources: &[TokenSource]| sources.iter().map(ConfiguredSource::from).collect();
    match start {
        StartConfiguration::Read { token, agent_token, .. } => (Ok(all(token)), Ok(all(agent_token))),
        StartConfiguration::Unknown(reason) => (Err(reason), Err(reason)),
    }
}

/// The same by the files of the node: what its next start obeys comes first.
pub(crate) fn of_files(configuration: &Configuration) -> (Configured, Configured) {
    let of = |for_agents: bool| {
        let first = configuration.effective(for_agents);
        let all = configuration.places.iter();
        let rest = all.filter(|place| place.key.is_for_agents() == for_agents && Some(*place) != first);
        Ok(first.into_iter().chain(rest).map(ConfiguredSource::from).collect())
    };
    (of(false), of(true))
}

/// In a table or a sentence.
pub(crate) fn text(configured: &Configured) -> String {
    match configured.as_deref() {
        Err(_) => "unknown".to_owned(),
        Ok([]) => "nowhere".to_owned(),
        Ok(sources) => {
            let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
            sources.join(", ")
        }
    }
}
