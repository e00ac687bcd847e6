//! A rotation under way, in words: where it stands, who holds it, and the one command that continues or undoes it.

use std::collections::BTreeMap;

use client::sanitize;
use engine::journal::Journal;
use engine::phase::{Goal, Phase};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::age;
use crate::rotation::again::Again;
use crate::rotation::leases::Rotation;
use crate::rotation::subject::{Ends, Product};
use crate::ui::{Stream, Tone, Ui};

/// What the Lease of one subject tells, as the document of every `status` has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The rotation under way.
    pub rotation: Option<UnderWay>,
    /// Leases may not be read.
    pub rotation_unknown: bool,
    /// When the last one ended.
    pub last_rotated: Option<Timestamp>,
    /// How.
    pub last_result: Option<String>,
}

impl Standing {
    /// Of a Lease; without one it may not be read.
    pub fn of<P: Product>(rotation: Option<&Rotation<P>>, again: &Again, now: Timestamp) -> Self {
        let record = rotation.map(|rotation| &rotation.record);
        Self {
            rotation: rotation.and_then(|rotation| UnderWay::of(rotation, again, now)),
            rotation_unknown: rotation.is_none(),
            last_rotated: record.and_then(|record| record.last_run),
            last_result: record.and_then(|record| record.last_result.clone()),
        }
    }

    /// The end of the page.
    pub fn page(&self, ui: &Ui, now: Timestamp) -> Vec<String> {
        let Some(rotation) = &self.rotation else {
            return vec![self.last(now)];
        };
        let title = ui.paint(Stream::Out, Tone::Strong, "Rotation under way");
        let labelled = |(label, text): (&str, String)| format!("  {label:<10}{}", sanitize::cell(&text));
        std::iter::once(title)
            .chain(rotation.lines(now).into_iter().map(labelled))
            .collect()
    }

    fn last(&self, now: Timestamp) -> String {
        if self.rotation_unknown {
            return "Whether a rotation is under way is not known: no right to read its Lease.".to_owned();
        }
        let ago = age::since(now, self.last_rotated);
        let before = match (self.last_rotated, &self.last_result) {
            (Some(_), Some(result)) => format!("The last one ended {ago} ago: {}.", sanitize::cell(result)),
            (Some(_), None) => format!("The last one ended {ago} ago."),
            (None, _) => "None was ever finished here.".to_owned(),
        };
        format!("No rotation is under way. {before}")
    }
}

/// A rotation under way, for people and machines.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnderWay {
    /// Where it stands; `None` where the journal cannot be read.
    #[serde(flatten)]
    pub stand: Option<Stand>,
    /// Why the journal cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Who holds the lock, and how long ago it was renewed.
    pub holder: Option<String>,
    /// When the holder renewed the lock last.
    pub renewed: Option<Timestamp>,
    /// Nobody holds it, or whoever did is known to have ended.
    pub unattended: bool,
    /// The command that goes on with it, in its present direction.
    #[serde(rename = "continue")]
    pub go_on: String,
    /// The command that undoes it, where that is still possible.
    pub undo: Option<String>,
}

/// What the journal says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stand {
    /// The name of the run.
    pub run: String,
    /// Which credential it shall end on.
    pub goal: Goal,
    /// Why the goal is *back*.
    pub reason: Option<String>,
    /// The farthest phase that was begun.
    pub phase: Phase,
    /// The step that was begun last.
    pub step: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// Its deadlines.
    pub deadlines: BTreeMap<&'static str, Timestamp>,
    /// Who can go on with it.
    pub resumable_by: String,
    /// The token at the start.
    pub old_fingerprint: client::secret::Fingerprint,
    /// The new one, once it is drawn.
    pub new_fingerprint: Option<client::secret::Fingerprint>,
}

impl UnderWay {
    /// Of a Lease; `None` where nothing is under way.
    pub fn of<P: Product>(rotation: &Rotation<P>, again: &Again, now: Timestamp) -> Option<Self> {
        let journal = rotation.journal.as_ref()?;
        let (stand, unreadable) = match journal {
            Ok(journal) => (Some(Stand::of(journal)), None),
            Err(why) => (None, Some(why.to_string())),
        };
        let back = stand.as_ref().is_some_and(|stand| stand.goal == Goal::Back);
        let undoable = stand
            .as_ref()
            .is_some_and(|stand| stand.goal == Goal::Forward && stand.phase.may_be_undone());
        Some(Self {
            holder: rotation.record.describe_holder(now),
            renewed: rotation.record.renewed.filter(|_| rotation.record.holder.is_some()),
            unattended: rotation.is_unattended(),
            go_on: if back { again.rollback() } else { again.rotate() },
            undo: undoable.then(|| again.rollback()),
            stand,
            unreadable,
        })
    }

    /// The page's lines: a label and a text each.
    pub fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(stand) = &self.stand {
            lines.extend(stand.lines(now));
        }
        lines.extend(self.unreadable.clone().map(|why| ("journal", why)));
        let holder = match &self.holder {
            Some(holder) if self.unattended => format!("nobody any more ({holder}, has ended)"),
            Some(holder) => holder.clone(),
            None => "nobody".to_owned(),
        };
        lines.push(("held by", holder));
        lines.push(("continue", self.go_on.clone()));
        lines.extend(self.undo.clone().map(|command| ("undo", command)));
        lines
    }
}

impl Stand {
    fn of<P: Product>(journal: &Journal<P>) -> Self {
        let deadlines = P::TIMERS
            .iter()
            .filter_map(|(timer, name)| Some((*name, journal.deadline(*timer)?)));
        let Ends { old, new } = P::ends(&journal.notes);
        Self {
            run: journal.run.to_string(),
            goal: journal.goal,
            reason: journal.reason.clone(),
            phase: journal.phase,
            step: journal.step.clone(),
            started: journal.started,
            deadlines: deadlines.collect(),
            resumable_by: journal.resumable_by.clone(),
            old_fingerprint: old,
            new_fingerprint: new,
        }
    }

    fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let new = self
            .new_fingerprint
            .map_or_else(|| "<new>".to_owned(), |new| new.to_string());
        let goal = match self.goal {
            Goal::Forward => format!("forward, from {} to {new}", self.old_fingerprint),
            Goal::Back => format!("back to {}", self.old_fingerprint),
        };
        let mut lines = vec![
            (
                "run",
                format!("{}, begun {} ago", self.run, age::since(now, Some(self.started))),
            ),
            ("goal", goal),
        ];
        lines.extend(self.reason.clone().map(|reason| ("because", reason)));
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
