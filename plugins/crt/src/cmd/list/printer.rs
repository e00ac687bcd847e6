//! Prints rows as they come where the form allows it.

use kubectl_core::error::Error;
use kubectl_core::output::{self, ListKind, OutputFlags, OutputFormat, Printable};
use kubectl_core::table::{Look, Table};
use kubectl_core::ui::Ui;

use crate::view::API_VERSION;
use crate::view::row::{Probed, Row};

const LIST: ListKind = ListKind {
    api_version: API_VERSION,
    kind: "RegistrationTokenList",
};
const NONE: &str = "No registration tokens found.";

pub(super) struct Printer<'a> {
    ui: &'a Ui,
    flags: &'a OutputFlags,
    probed: bool,
    form: Form,
}

enum Form {
    Table {
        table: Table,
        look: Look,
        empty: bool,
    },
    /// Needs all rows.
    Collected(Vec<Row>),
}

impl<'a> Printer<'a> {
    pub(super) fn new(ui: &'a Ui, flags: &'a OutputFlags, probed: bool) -> Result<Self, Error> {
        let format = flags.format()?;
        let sorted = flags.sort_by.as_deref().is_some_and(|path| !path.is_empty());
        let form = match format {
            OutputFormat::Table | OutputFormat::Wide if !sorted => Form::Table {
                table: Table::new(if probed { Probed::COLUMNS } else { Row::COLUMNS }),
                look: Look {
                    wide: matches!(format, OutputFormat::Wide),
                    no_headers: flags.no_headers.unwrap_or(false),
                },
                empty: true,
            },
            _ => Form::Collected(Vec::new()),
        };
        Ok(Self {
            ui,
            flags,
            probed,
            form,
        })
    }

    pub(super) fn add(&mut self, rows: Vec<Row>) {
        match &mut self.form {
            Form::Collected(all) => all.extend(rows),
            Form::Table { table, empty, .. } => {
                *empty &= rows.is_empty();
                for row in rows {
                    if self.probed {
                        table.row(Probed(row).cells());
                    } else {
                        table.row(row.cells());
                    }
                }
            }
        }
    }

    /// Prints what has come since the last call.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        match &mut self.form {
            Form::Table { table, look, .. } if !table.is_empty() => self.ui.write_out(&table.take(*look)),
            _ => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<(), Error> {
        match self.form {
            Form::Table { empty, .. } => {
                if empty {
                    self.ui.status(NONE);
                }
                Ok(())
            }
            Form::Collected(rows) if self.probed => {
                let rows: Vec<Probed> = rows.into_iter().map(Probed).collect();
                output::print_list(self.ui, self.flags, LIST, &rows, NONE)
            }
            Form::Collected(rows) => output::print_list(self.ui, self.flags, LIST, &rows, NONE),
        }
    }
}
