//! A rotation in progress, in words: how far it came, who holds it, and the command that resumes it or rolls it back.

use std::collections::BTreeMap;

use crate::age;
use crate::ui::{Stream, Tone, Ui};
use client::sanitize;
use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::journal::{Journal, Unreadable};
use engine::lock::LeaseRecord;
use engine::phase::Phase;
use engine::rotation::{Credentials, Rotation, Timer};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::rotation::commands::{Commands, OtherKind};
use crate::rotation::leases::LeasedRotation;

/// What the Lease of one target says, as the document of every `status` has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// The rotation in progress.
    pub rotation: Option<RotationInProgress>,
    /// There is no permission to read Leases.
    pub rotation_unknown: bool,
    /// When the last rotation ended.
    pub last_rotated: Option<Timestamp>,
    /// How it ended.
    pub last_result: Option<String>,
}

impl RotationStatus {
    /// By a Lease; without one it may not be read.
    pub fn of<R: Rotation>(rotation: Option<&LeasedRotation<R>>, commands: &Commands, now: Timestamp) -> Self {
        let record = rotation.map(|rotation| &rotation.record);
        Self {
            rotation: rotation.and_then(|rotation| RotationInProgress::of(rotation, commands, now)),
            rotation_unknown: rotation.is_none(),
            last_rotated: record.and_then(|record| record.last_run),
            last_result: record.and_then(last_result::<R>),
        }
    }

    /// The end of the page.
    pub fn page(&self, ui: &Ui, now: Timestamp) -> Vec<String> {
        let Some(rotation) = &self.rotation else {
            return vec![self.last(now)];
        };
        let title = ui.paint(Stream::Out, Tone::Strong, "Rotation in progress");
        let labelled = |(label, text): (&str, String)| format!("  {label:<10}{}", sanitize::cell(&text));
        std::iter::once(title)
            .chain(rotation.lines(now).into_iter().map(labelled))
            .collect()
    }

    fn last(&self, now: Timestamp) -> String {
        if self.rotation_unknown {
            return "Rotation in progress: unknown (no permission to read Leases)".to_owned();
        }
        let ago = age::since(now, self.last_rotated);
        let last = match (self.last_rotated, &self.last_result) {
            (Some(_), Some(result)) => format!("{} ({ago} ago)", sanitize::cell(result)),
            (Some(_), None) => format!("{ago} ago"),
            (None, _) => "<none>".to_owned(),
        };
        format!("Rotation in progress: none. Last rotation: {last}")
    }
}

/// One of another kind with the same Lease is named.
fn last_result<R: Rotation>(record: &LeaseRecord) -> Option<String> {
    let result = record.last_result.clone()?;
    match &record.kind {
        Some(kind) if !R::KINDS.contains(&kind.as_str()) => Some(format!("{result}, {kind}")),
        _ => Some(result),
    }
}

/// A rotation in progress.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationInProgress {
    /// What the journal says; `None` where it cannot be read.
    #[serde(flatten)]
    pub run: Option<RunStatus>,
    /// Why the journal cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Who holds the lock, and how long ago it was renewed.
    pub holder: Option<String>,
    /// When the holder renewed the lock last.
    pub renewed: Option<Timestamp>,
    /// No process holds it, or the one that did is known to have ended.
    pub unattended: bool,
    /// The command that resumes it, in its present direction.
    pub resume: String,
    /// The command that rolls it back, where that is still possible.
    pub rollback: Option<String>,
}

/// What the journal says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// The name of the run.
    pub run: String,
    /// Which credential it ends on.
    pub direction: Direction,
    /// Why the direction is not forward.
    pub reason: Option<String>,
    /// The farthest phase that was begun.
    pub phase: Phase,
    /// The step that was intended last.
    pub step: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// The deadlines of the process that holds the lock. Who resumes the rotation sets others.
    pub deadlines: BTreeMap<&'static str, Timestamp>,
    /// Who can resume it.
    pub resumable_by: String,
    /// The credential at the start.
    pub old_fingerprint: Fingerprint,
    /// The new one, once it is drawn.
    pub new_fingerprint: Option<Fingerprint>,
}

impl RotationInProgress {
    /// By a Lease; `None` where no rotation is in progress.
    pub fn of<R: Rotation>(rotation: &LeasedRotation<R>, commands: &Commands, now: Timestamp) -> Option<Self> {
        let (run, unreadable) = match rotation.journal.as_ref()? {
            Err(Unreadable::OtherKind(kind)) if commands.other(kind).is_some() => {
                return Some(Self::of_other(rotation, commands.other(kind)?, now));
            }
            Ok(journal) => (Some(RunStatus::of(journal, rotation.is_unattended())), None),
            Err(why) => (None, Some(why.to_string())),
        };
        let forward = run.as_ref().is_none_or(|run| run.direction == Direction::Forward);
        let undoable = run.as_ref().is_some_and(|run| forward && run.phase.can_be_undone());
        Some(Self {
            holder: rotation.record.describe_holder(now),
            renewed: rotation.record.renewed.filter(|_| rotation.record.holder.is_some()),
            unattended: rotation.is_unattended(),
            resume: if forward {
                commands.rotate()
            } else {
                commands.rollback()
            },
            rollback: undoable.then(|| commands.rollback()),
            run,
            unreadable,
        })
    }

    /// Another kind of rotation has the Lease.
    fn of_other<R: Rotation>(rotation: &LeasedRotation<R>, other: &OtherKind, now: Timestamp) -> Self {
        Self {
            run: None,
            unreadable: Some(format!("{} is in progress", other.display)),
            holder: rotation.record.describe_holder(now),
            renewed: rotation.record.renewed.filter(|_| rotation.record.holder.is_some()),
            unattended: rotation.is_unattended(),
            resume: other.commands.rotate(),
            rollback: Some(other.commands.rollback()),
        }
    }

    /// The page's lines: a label and a text each.
    pub fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(run) = &self.run {
            lines.extend(run.lines(now));
        }
        lines.extend(self.unreadable.clone().map(|why| ("journal", why)));
        let holder = match &self.holder {
            Some(holder) if self.unattended => format!("<none> ({holder}, has ended)"),
            Some(holder) => holder.clone(),
            None => "<none>".to_owned(),
        };
        lines.push(("held by", holder));
        lines.push(("resume", self.resume.clone()));
        lines.extend(self.rollback.clone().map(|command| ("rollback", command)));
        lines
    }
}

impl RunStatus {
    fn of<R: Rotation>(journal: &Journal<R>, is_unattended: bool) -> Self {
        let deadline = |timer| journal.deadline(timer).filter(|_| !is_unattended);
        let named = |timer: Timer| Some((timer.name(R::QUIET_FLAG), deadline(timer)?));
        let run = journal.run();
        let Credentials { old, new } = R::credentials(&run.record);
        Self {
            run: run.id.to_string(),
            direction: run.direction,
            reason: journal.reason.clone(),
            phase: run.phase,
            step: journal.step.clone(),
            started: journal.started,
            deadlines: Timer::ALL.into_iter().filter_map(named).collect(),
            resumable_by: journal.resumable_by.clone(),
            old_fingerprint: old,
            new_fingerprint: new,
        }
    }

    fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let new = self
            .new_fingerprint
            .map_or_else(|| "<new>".to_owned(), |new| new.to_string());
        let direction = match self.direction {
            Direction::Forward => format!("forward, from {} to {new}", self.old_fingerprint),
            Direction::Rollback => format!("rollback to {}", self.old_fingerprint),
            Direction::RollForward => format!("roll forward to {new}, rollback is no longer possible"),
        };
        let started = age::since(now, Some(self.started));
        let mut lines = vec![
            ("run", format!("{}, started {started} ago", self.run)),
            ("direction", direction),
        ];
        lines.extend(self.reason.clone().map(|reason| ("reason", reason)));
        lines.push(("phase", self.phase.to_string()));
        lines.extend(self.step.clone().map(|step| ("step", step)));
        for (name, at) in &self.deadlines {
            let left = at.as_second() - now.as_second();
            let when = if left > 0 {
                format!("in {}", age::human(left))
            } else {
                format!("{} ago", age::human(-left))
            };
            lines.push(("deadline", format!("{name}: {when}")));
        }
        lines
    }
}
