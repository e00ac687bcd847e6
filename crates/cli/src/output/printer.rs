//! Prints a long list page by page, so that the first rows appear early and memory use stays low.
//!
//! This works for tables without `--sort-by`. Their columns only grow. Every other format needs all rows.

use client::error::Error;

use super::{ListKind, OutputFlags, OutputFormat, Printable, print_list};
use crate::table::{Look, Table};
use crate::ui::Ui;

/// A list that is being printed.
pub struct ListPrinter<'a, T> {
    ui: &'a Ui,
    flags: &'a OutputFlags,
    of: ListKind,
    none: &'a str,
    form: Form<T>,
}

enum Form<T> {
    Table { table: Table, look: Look, empty: bool },
    Collected(Vec<T>),
}

impl<'a, T: Printable> ListPrinter<'a, T> {
    /// Checks `-o` before any request is sent. If no row is added, a table is replaced by `none` on stderr.
    pub fn new(ui: &'a Ui, flags: &'a OutputFlags, of: ListKind, none: &'a str) -> Result<Self, Error> {
        let format = flags.format()?;
        let sorted = flags.sort_by.as_deref().is_some_and(|path| !path.is_empty());
        let form = match format {
            OutputFormat::Table | OutputFormat::Wide if !sorted => Form::Table {
                table: Table::new(T::COLUMNS),
                look: flags.look(matches!(format, OutputFormat::Wide)),
                empty: true,
            },
            _ => Form::Collected(Vec::new()),
        };
        Ok(Self {
            ui,
            flags,
            of,
            none,
            form,
        })
    }

    /// Adds some rows. Of a table only their cells are kept.
    pub fn add(&mut self, rows: impl IntoIterator<Item = T>) {
        match &mut self.form {
            Form::Collected(all) => all.extend(rows),
            Form::Table { table, .. } => {
                for row in rows {
                    table.row(row.cells());
                }
            }
        }
    }

    /// Prints what was added since the last call, if the form allows it. The more rows come at once, the better their
    /// columns fit.
    ///
    /// # Errors
    /// If stdout is closed (`list | head`): the remaining pages need not be read.
    pub fn flush(&mut self) -> Result<(), Error> {
        match &mut self.form {
            Form::Table { table, look, empty } if !table.is_empty() => {
                *empty = false;
                self.ui.write_out(&table.take(*look));
                self.ui.output_error().cloned().map_or(Ok(()), Err)
            }
            _ => Ok(()),
        }
    }

    /// Prints what is left.
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        match self.form {
            Form::Table { empty: true, .. } => {
                self.ui.status(self.none);
                Ok(())
            }
            Form::Table { .. } => Ok(()),
            Form::Collected(rows) => print_list(self.ui, self.flags, self.of, &rows, self.none),
        }
    }
}
