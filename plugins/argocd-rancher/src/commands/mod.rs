//! The commands, one file each; [`mod@run`] is what `rotate` and `rollback` share.

pub(crate) mod add;
pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod rollback;
pub(crate) mod rotate;
mod run;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod version;

use argocd::ClusterSecret;
use cli::rotation::leases;
use cli::ui::Ui;
use client::duration;
use client::error::{Error, Kind};
use engine::rotation::Blocker;
use rancher::api_token::{InvalidLifetime, Lifetime};
use serde::Serialize;

use crate::address::RancherAddress as _;
use crate::connections::Argo;
use crate::hints::Hints;
use crate::mark::API_VERSION;
use crate::report;
use crate::rotation::ArgocdRancher;

/// Parses the validity of a token.
fn lifetime(text: &str) -> Result<Lifetime, String> {
    let duration = duration::parse(text).map_err(|error| error.to_string())?;
    duration.try_into().map_err(|error: InvalidLifetime| error.to_string())
}

/// The document of a command for several clusters.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DocumentList<T> {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<T>,
}

impl<T> DocumentList<T> {
    fn new(kind: &'static str, items: Vec<T>) -> Self {
        Self {
            api_version: API_VERSION,
            kind,
            items,
        }
    }
}

/// The cluster of this name, among those that Argo CD reaches through Rancher.
fn find_cluster<'a>(clusters: &'a [ClusterSecret], name: &str, hints: &Hints) -> Result<&'a ClusterSecret, Error> {
    let through = || clusters.iter().filter(|cluster| cluster.server.rancher().is_some());
    if let Some(exact) = through().find(|cluster| cluster.object.name == name) {
        return Ok(exact);
    }
    let is = |cluster: &&ClusterSecret| {
        let by_id = cluster.server.rancher().is_some_and(|(_, id)| id.as_str() == name);
        by_id || cluster.name == name
    };
    match through().filter(is).collect::<Vec<_>>()[..] {
        [one] => Ok(one),
        [] => Err(Error::new(
            Kind::NotFound,
            format!("cluster {name:?} not found among those that Argo CD reaches through Rancher"),
        )
        .hint(format!("{} prints these clusters", hints.command("list", "")))),
        ref several => {
            let secrets: Vec<&str> = several.iter().map(|cluster| cluster.object.name.as_str()).collect();
            let message = format!("cluster {name:?} is ambiguous: it is in Secrets {}", secrets.join(", "));
            Err(Error::usage(message).hint("pass the name of the Secret instead"))
        }
    }
}

/// The error for a blocker.
fn refuse(blocker: Option<Blocker>) -> Result<(), Error> {
    match blocker {
        Some(Blocker { reason, hint, .. }) => Err(Error::failed(reason).hint(hint)),
        None => Ok(()),
    }
}

/// Refuses to change a Secret while its token is being rotated. `action`: such as "delete".
async fn require_no_rotation(argo: &Argo, name: &str, action: &str, hints: &Hints) -> Result<(), Error> {
    let lease = report::lease(&argo.namespace, name);
    let Some(rotation) = leases::of::<ArgocdRancher>(&argo.server, &lease).await? else {
        let message = format!(
            "cannot {action} Secret {name}: no permission to read Leases, so a rotation in progress is unknown"
        );
        return Err(Error::new(Kind::Forbidden, message).hint(format!(
            "grant get on leases.coordination.k8s.io in namespace {}",
            argo.namespace
        )));
    };
    let Some(part) = report::Part::of(&rotation) else {
        return Ok(());
    };
    let hint = format!("{} rolls it back", hints.with_rancher("rollback", name));
    Err(Error::failed(format!("cannot {action} Secret {name}: {part}")).hint(hint))
}

/// Ends a command for several clusters that was interrupted.
fn check_interrupt(ui: &Ui, next: &impl std::fmt::Display) -> Result<(), Error> {
    if ui.interrupt().is_cancelled() {
        return Err(Error::new(
            Kind::Interrupted,
            format!("interrupted before cluster {next}"),
        ));
    }
    Ok(())
}
