//! What one rotation of a cluster's tokens brings to the verbs `rotate` and `rollback`.

use std::time::Duration;

use cli::rotation::plan::Line;
use cli::rotation::subject::Subject;
use client::connection::Server;
use client::error::{Error, Kind};
use client::secret::{Fingerprint, Secret};
use engine::plan::Plan;
use rancher::token::{self, SYSTEM};

use super::server_check;
use crate::controller::{CrtActor, Options};
use crate::rotation::Crt;
use crate::rotation::view::View;
use crate::sides::{Path, Sides};

/// One cluster to work on.
pub(super) struct Work<'a> {
    pub(super) sides: &'a Sides,
    pub(super) actor: CrtActor<'a>,
    pub(super) options: Options,
    pub(super) subject: Subject,
}

impl<'a> cli::rotation::Work for Work<'a> {
    type Actor = CrtActor<'a>;

    fn actor(&self) -> &CrtActor<'a> {
        &self.actor
    }

    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn server(&self) -> &Server {
        &self.sides.management
    }

    fn patience(&self) -> Duration {
        self.options.timeout.max(self.options.settle)
    }

    fn resumable_by(&self) -> String {
        format!(
            "anybody with the rights on the management cluster and on {} that the rotation was begun with",
            self.sides.cluster.id
        )
    }

    fn reached(&self) -> String {
        let downstream = self.sides.downstream.as_ref();
        downstream.map_or_else(String::new, |downstream| format!(", reached {}", downstream.path))
    }

    /// The derived way rides on the agent's own tunnel, which may be what is missing.
    fn explain(&self, error: Error) -> Error {
        let derived = self
            .sides
            .downstream
            .as_ref()
            .is_some_and(|downstream| downstream.path == Path::Derived);
        if !derived || error.kind != Kind::Unavailable {
            return error;
        }
        error
            .hint("Rancher reaches the cluster through its agent, whose tunnel may be down: `kubectl crt status` says more")
            .hint("a way past the agent can be given with --downstream-context")
    }

    async fn check(&self, plan: &Plan<Crt>, lines: &mut [Line]) {
        server_check::check(self.sides, plan, lines).await;
    }

    fn unproven(&self) -> Vec<String> {
        let unproven = |token| format!("Not proven: that Rancher refuses {token}; nobody knows its value any more.");
        self.actor.unproven().into_iter().map(unproven).collect()
    }

    async fn done(&self, before: &View, plan: Option<&Plan<Crt>>) -> (Option<Fingerprint>, String) {
        let found = token::get(&self.sides.management.client, &self.sides.cluster.id, SYSTEM).await;
        let system = found.ok().flatten();
        let new = system.and_then(|token| token.current().map(Secret::fingerprint));
        (new, last_line(before, plan))
    }
}

/// What was not changed, and what nobody can see.
fn last_line(before: &View, plan: Option<&Plan<Crt>>) -> String {
    let renewed = plan.map(|plan| &plan.notes.others);
    let left: Vec<&str> = before
        .others
        .keys()
        .filter(|name| renewed.is_some_and(|renewed| !renewed.contains_key(*name)))
        .map(String::as_str)
        .collect();
    let old = plan.map_or_else(|| "the old token".to_owned(), |plan| plan.notes.old.to_string());
    let unchanged = if left.is_empty() {
        "No registration token of the cluster was left as it was.".to_owned()
    } else {
        format!("Not changed: registration token {}.", left.join(", "))
    };
    format!(
        "{unchanged} A tunnel that a stranger opened earlier with {old} may still be open: a restart of Rancher \
         (kubectl -n cattle-system rollout restart deployment/rancher, on the management cluster) cuts it."
    )
}
