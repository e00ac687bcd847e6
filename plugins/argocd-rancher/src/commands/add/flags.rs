//! The flags of `add`.

use argocd::ClusterSecret;
use cli::rotation::force;
use client::error::Error;
use engine::rotation::Check;
use rancher::api_token::Lifetime;

use crate::connections::RancherFlags;

/// The flags of `kubectl argocd-rancher add`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Add {
    /// Cluster id or display name in Rancher
    #[arg(value_name = "CLUSTER", required = true)]
    pub targets: Vec<String>,

    /// Name of the cluster in Argo CD; by default its display name in Rancher
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Validity of the token; Rancher may grant less
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = crate::commands::lifetime)]
    pub ttl: Lifetime,

    /// Label of the new Secret, for ApplicationSets to select by; can be repeated
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// Namespace that Argo CD is limited to; can be repeated
    #[arg(long = "only-namespace", value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,

    /// With --only-namespace, include cluster-scoped objects
    #[arg(long, requires = "namespaces")]
    pub cluster_resources: bool,

    /// Issue a token that is not limited to the cluster. Only for cluster local, and only where Rancher redirects Argo CD out of the scope of a limited one (Rancher 2.15.0)
    #[arg(long)]
    pub unscoped: bool,

    /// Argo CD project of the cluster
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,

    /// Override a check; can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::of(&[OFFLINE, RIGHTS, OWNER]))]
    pub force: Vec<Check>,

    /// Only print what would be done, or why it would be refused
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// How to reach Rancher.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

pub(super) const OFFLINE: Check = Check {
    name: "offline",
    help: "check the token at Rancher only, where the agent is offline",
};
pub(super) const RIGHTS: Check = Check {
    name: "rights",
    help: "add the cluster although the token's owner lacks permissions",
};
pub(super) const OWNER: Check = Check {
    name: "owner",
    help: "change a Secret that a GitOps tool or controller owns",
};

const EXAMPLES: &str = "\
Examples:
  # Print what would be done
  kubectl argocd-rancher add staging --rancher-context rancher --dry-run

  # Add two clusters to Argo CD, each with its own token
  kubectl argocd-rancher add staging c-m-x7k2p9bq --rancher-context rancher

  # Use the token of a service user, and set a label that an ApplicationSet selects by
  pass show rancher/argocd | kubectl argocd-rancher add staging -l env=staging \\
    --rancher-url https://rancher.example.com --rancher-token-stdin

The token belongs to the Rancher user of this command, and only this user can list or revoke it. In an existing Secret only the token is replaced, and only if it does not work.";

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label must be KEY=VALUE")?;
    if key.contains("cattle.io/") {
        // Rancher deletes unknown objects with its own labels.
        return Err(format!("label {key} is reserved for Rancher"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl Add {
    /// Refuses flags that would change anything but the token in an existing Secret.
    pub(super) fn agrees_with(&self, existing: &ClusterSecret) -> Result<(), Error> {
        let has = |(key, value): &(String, String)| existing.labels.get(key) == Some(value);
        let differs = [
            ("--name", self.name.as_ref().is_some_and(|name| *name != existing.name)),
            ("--label", !self.labels.iter().all(has)),
            (
                "--only-namespace",
                !self.namespaces.is_empty() && self.namespaces != existing.namespaces,
            ),
            (
                "--cluster-resources",
                self.cluster_resources && !existing.cluster_resources,
            ),
            ("--project", self.project.is_some() && self.project != existing.project),
        ];
        let Some((flag, _)) = differs.into_iter().find(|(_, differs)| *differs) else {
            return Ok(());
        };
        let name = &existing.object.name;
        Err(Error::failed(format!(
            "Secret {name} exists already for this cluster, and differs from {flag}"
        ))
        .hint(format!(
            "omit {flag}, or change Secret {name} first: `add` replaces only its token"
        )))
    }
}
