//! A target that the command line does not name is chosen from a list, where there is a terminal: from what shell completion
//! offers at that place, with what `list` shows about it.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use client::error::Error;

use super::completion::{self, Candidate, CompletionRequest};
use super::{Plugin, with_runtime};
use crate::table::{Look, Table};
use crate::ui::Ui;

/// What the command line lacks.
pub(super) struct Choice {
    request: CompletionRequest,
    /// The command takes several.
    several: bool,
    arguments: Vec<OsString>,
}

impl Choice {
    /// Of a usage error: `None` where something else is wrong, or more than a target is missing.
    pub(super) fn of(error: &clap::Error, command: clap::Command, arguments: &[OsString]) -> Option<Self> {
        if error.kind() != ErrorKind::MissingRequiredArgument {
            return None;
        }
        let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
            return None;
        };
        let [missing] = missing.as_slice() else { return None };
        let words = arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned());
        let words: Vec<String> = words.chain([String::new()]).collect();
        let (request, target) = completion::request_for_target(command, &words)?;
        let is_target = target.get_value_names().is_some_and(|names| {
            let name = names.first().map_or("", |name| name.as_str());
            missing
                .strip_prefix('<')
                .and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with(['>', '|']))
        });
        is_target.then(|| Self {
            request,
            several: target.get_num_args().is_some_and(|count| count.max_values() > 1),
            arguments: arguments.to_vec(),
        })
    }

    /// Where to ask, if there is a terminal.
    pub(super) fn ui(&self) -> Option<Ui> {
        let ui = Ui::of_process(&self.request.global.ui);
        ui.can_ask().then_some(ui)
    }

    /// The command line with what the user has chosen.
    pub(super) fn ask<P: Plugin>(self, ui: &Ui) -> Result<Vec<OsString>, Error> {
        let Self {
            request,
            several,
            mut arguments,
        } = self;
        let verb = request.verbs.join(" ");
        let chosen = with_runtime(
            ui,
            |context| async move {
                let ui = context.ui.clone();
                let candidates = P::candidates(request, context).await?;
                if candidates.is_empty() {
                    return Err(Error::failed(format!("found nothing to {verb}")));
                }
                let (header, items) = lines(&candidates);
                let prompt = if several {
                    format!("Select what to {verb} (space selects, enter confirms):")
                } else {
                    format!("Select what to {verb}:")
                };
                let chosen = ui.choose(&prompt, &header, &items, several).await?;
                Ok(chosen
                    .into_iter()
                    .map(|at| candidates[at].value.clone())
                    .collect::<Vec<_>>())
            },
            P::NAME,
        )?;
        arguments.extend(chosen.into_iter().map(OsString::from));
        Ok(arguments)
    }
}

/// The header and the lines of the table of `list`; only names where nothing else is known.
fn lines(candidates: &[Candidate]) -> (String, Vec<String>) {
    let columns = candidates.iter().find_map(|candidate| candidate.row.as_ref());
    let columns = columns.map_or_else(Vec::new, |row| row.columns.to_vec());
    if columns.is_empty() {
        let line = |candidate: &Candidate| {
            format!("{}   {}", candidate.value, candidate.help)
                .trim_end()
                .to_owned()
        };
        return (String::new(), candidates.iter().map(line).collect());
    }
    let mut table = Table::new(&columns);
    for candidate in candidates {
        let cells = candidate.row.as_ref().map_or(&[][..], |row| &row.cells);
        table.row(cells.iter());
    }
    let text = table.render(Look::default());
    let mut lines = text.lines().map(str::to_owned);
    (lines.next().unwrap_or_default(), lines.collect())
}
