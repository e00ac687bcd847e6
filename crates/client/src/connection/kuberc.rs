//! The policy for credential plugins in kubectl's preferences file, which applies here too.
//!
//! (kubernetes/kubernetes v1.35, KEP-3104: `credentialPluginPolicy` and `credentialPluginAllowlist` of `~/.kube/kuberc`.)

use std::path::PathBuf;

use serde::Deserialize;

use super::environment::Environment;
use crate::error::{Error, Kind, unreachable};
use crate::yaml;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preferences {
    credential_plugin_policy: Option<String>,
    credential_plugin_allowlist: Vec<Allowed>,
}

/// The key was called `name` in v1.35, when the feature was new, and `command` since kubernetes#137272.
#[derive(Deserialize)]
struct Allowed {
    #[serde(alias = "command")]
    name: Option<String>,
}

/// Rejects a plugin that the preferences do not allow.
pub(super) fn check(command: &str, environment: &Environment) -> Result<(), Error> {
    let Some(file) = file(environment) else { return Ok(()) };
    let Ok(text) = std::fs::read_to_string(&file) else {
        return Ok(());
    };
    let preferences: Option<Preferences> = yaml::from_str(&text)
        .map_err(|invalid| Error::failed(format!("error loading kuberc file \"{}\": {invalid}", file.display())))?;
    let preferences = preferences.unwrap_or_default();
    let listed = preferences
        .credential_plugin_allowlist
        .iter()
        .filter_map(|allowed| allowed.name.as_deref());
    let reason = match preferences.credential_plugin_policy.as_deref() {
        None | Some("" | "AllowAll") => return Ok(()),
        Some("Allowlist") => match look_up(command, environment) {
            Some(program)
                if listed
                    .into_iter()
                    .any(|name| look_up(name, environment).as_ref() == Some(&program)) =>
            {
                return Ok(());
            }
            _ => "it is not on the allowlist".to_owned(),
        },
        Some(policy) => format!("policy set to \"{policy}\""),
    };
    let error = unreachable(format!(
        "getting credentials: plugin \"{command}\" not allowed: {reason}"
    ));
    Err(error
        .of_kind(Kind::Unauthorized)
        .hint(format!("the policy is in {}", file.display())))
}

/// The file of a command, as Go's `exec.LookPath` finds it. The command and each allowed name are looked up, so that an
/// allowed name does not match another program of the same name.
fn look_up(command: &str, environment: &Environment) -> Option<PathBuf> {
    if command.contains(std::path::MAIN_SEPARATOR) {
        return std::path::absolute(command).ok().filter(|file| file.is_file());
    }
    let path = environment.variable("PATH")?;
    std::env::split_paths(path)
        .map(|directory| directory.join(command))
        .find(|file| file.is_file())
}

/// The preferences file. `KUBERC` names another file, or is `off`.
fn file(environment: &Environment) -> Option<PathBuf> {
    match environment.variable("KUBERC") {
        Some("off") => None,
        Some(path) => Some(path.into()),
        None => environment.home().map(|home| home.join(".kube/kuberc")),
    }
}
