//! What a run says at its end, or where it stops.

use client::error::{Error, Kind};
use engine::controller::Summary;
use k8s_openapi::jiff::Timestamp;
use supervisor::TokenHash;
use supervisor::snapshot::SnapshotFile;

use super::ServerTokenController;
use crate::server_token::rotation::agents_with_token;
use crate::server_token::session::OutputTarget;
use crate::server_token::session::explain::{accepted_by_all, leaves_a_run, logins, problems, until_the_end};
use crate::snapshots::needs::Needs;
use crate::snapshots::row::Snapshots;

impl ServerTokenController<'_> {
    /// Adds why servers are not ready, and what to mind until the end.
    pub(super) fn explained(&self, mut error: Error) -> Error {
        // The stages know the verb alone.
        let recover = format!("`{}`", self.options.commands.recover());
        for hint in &mut error.hints {
            *hint = hint.replace("`recover`", &recover);
        }
        if error.kind == Kind::Usage {
            return error;
        }
        let state = self.state();
        let Some(latest) = &state.latest else { return error };
        let own = self.own();
        let record = own.backup.as_ref().map(|backup| &backup.content.record);
        let record = record.filter(|record| record.round.is_some());
        // Another process has ended it since it was observed.
        if record.is_some() && !leaves_a_run(error.kind) {
            return error;
        }
        let reasons = problems(latest).into_iter().chain(own.reasons.iter().cloned());
        let error = reasons.fold(error, Error::hint);
        match record {
            Some(record) => {
                let hints = until_the_end(
                    Some(record.old),
                    &record.new,
                    &logins(&latest.seen, latest.at.elapsed(), |server| server.accepts),
                );
                hints.into_iter().fold(error, Error::hint)
            }
            None => error,
        }
    }

    pub(super) fn not_proven(&self) -> Vec<String> {
        let options = self.options.of_rotation();
        if options.force_unpin && !options.has_node_access {
            vec![
                "Not proven: that no server has another token in its configuration (--force=unpin). One that has does not start again."
                    .to_owned(),
            ]
        } else {
            Vec::new()
        }
    }

    pub(super) fn summarized(&self) -> Summary {
        let seen = self.state().latest.as_ref().map(|latest| latest.seen.clone());
        let in_use = seen
            .as_ref()
            .and_then(|seen| accepted_by_all(seen, |server| server.accepts));
        let mut sentences = Vec::new();
        let name = in_use.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        sentences.push(match &self.options.output {
            OutputTarget::File(path) => format!("The new token is {name}, in {}.", path.display()),
            OutputTarget::Print | OutputTarget::Nowhere => format!("The new token is {name}."),
        });
        let snapshots = self.own().snapshots.clone().unwrap_or_default();
        let hash = in_use.and_then(|value| Some(self.state().tokens.get(value)?.hash()));
        sentences.extend(older_snapshots(snapshots, hash, self.cluster.server.clock.now()));
        let agents: Vec<&str> = seen.iter().flat_map(agents_with_token).map(String::as_str).collect();
        if !agents.is_empty() {
            sentences.push(format!(
                "These agents still have the old token in their configuration, and need the new one before they join again: {}.",
                agents.join(", ")
            ));
        }
        Summary {
            in_use,
            message: sentences.join(" "),
        }
    }
}

/// Snapshots that need another token.
fn older_snapshots(files: Vec<SnapshotFile>, in_use: Option<TokenHash>, now: Timestamp) -> Option<String> {
    let in_use = in_use.map(|hash| ("the new token".to_owned(), hash));
    let snapshots = Snapshots::new(files, in_use.as_slice(), None, now);
    match snapshots.count(|needs| !matches!(needs, Needs::Given | Needs::Unknown)) {
        0 => None,
        1 => Some(
            "One snapshot can be restored only with another token. Keep the old token until it is deleted.".to_owned(),
        ),
        count => Some(format!(
            "{count} snapshots can be restored only with another token. Keep the old token until the last of them is deleted."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::needs::tests::{hash, taken_with};

    #[test]
    fn snapshots_that_need_another_token_are_counted() {
        let of =
            |tokens: &[Option<&str>]| older_snapshots(taken_with(tokens), Some(hash("new")), Timestamp::UNIX_EPOCH);
        assert_eq!(of(&[Some("new"), None]), None);
        let text = of(&[Some("new"), Some("old"), Some("older")]).unwrap();
        assert!(
            text.starts_with("2 snapshots can be restored only with another token."),
            "{text}"
        );
        assert!(of(&[Some("new"), Some("old")]).unwrap().starts_with("One snapshot"));
        // One that was not taken needs none.
        let mut files = taken_with(&[Some("old")]);
        files[0].error = Some("no space".to_owned());
        assert_eq!(older_snapshots(files, Some(hash("new")), Timestamp::UNIX_EPOCH), None);
    }
}
