//! kubectl's preferences file may forbid credential plugins; what the user forbade kubectl is forbidden to us.
//!
//! (kubernetes/kubernetes v1.35, KEP-3104: `credentialPluginPolicy` and `credentialPluginAllowlist` of `~/.kube/kuberc`.)

use std::path::PathBuf;

use serde::Deserialize;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::environment::Environment;
use crate::error::Error;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preferences {
    credential_plugin_policy: Option<String>,
    credential_plugin_allowlist: Vec<Allowed>,
}

/// The key was called `name` when the feature was new, and `command` later.
#[derive(Deserialize)]
struct Allowed {
    #[serde(alias = "command")]
    name: Option<String>,
}

/// Refuses a plugin that the preferences do not allow.
pub(super) fn check(command: &str, environment: &Environment) -> Result<(), Error> {
    let Some(file) = file(environment) else { return Ok(()) };
    let Ok(text) = std::fs::read_to_string(&file) else {
        return Ok(());
    };
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    let preferences: Option<Preferences> = serde_saphyr::from_str_with_options(&text, options).map_err(|_| {
        Error::failed(format!(
            "error loading kuberc file \"{}\": it is not valid",
            file.display()
        ))
    })?;
    let preferences = preferences.unwrap_or_default();
    let base = |path: &str| path.rsplit('/').next().map(str::to_owned);
    let listed = preferences
        .credential_plugin_allowlist
        .iter()
        .filter_map(|allowed| allowed.name.as_deref());
    let allowed = match preferences.credential_plugin_policy.as_deref() {
        None | Some("" | "AllowAll") => true,
        // A bare name allows the program wherever it lies; a path only that one.
        Some("Allowlist") => listed
            .into_iter()
            .any(|name| name == command || Some(name.to_owned()) == base(command)),
        Some(_) => false,
    };
    if allowed {
        return Ok(());
    }
    Err(Error::failed(format!(
        "plugin policy of {} forbids the credential plugin \"{command}\"",
        file.display()
    )))
}

/// `KUBERC` names another file, or switches it `off`.
fn file(environment: &Environment) -> Option<PathBuf> {
    match environment.variable("KUBERC") {
        Some("off") => None,
        Some(path) => Some(path.into()),
        None => environment.home().map(|home| home.join(".kube/kuberc")),
    }
}
