//! Tables that kubectl could have printed: upper-case headers, three spaces between columns, no borders, no wrapping,
//! and nothing at all, not even headers, when there is nothing to show.

use comfy_table::{ColumnConstraint, ContentArrangement, Width, presets};

use crate::ui;

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its header, upper case.
    pub header: &'static str,
    /// Shown with `-o wide` only.
    pub wide: bool,
}

impl Column {
    /// A column that is always shown.
    pub const fn new(header: &'static str) -> Self {
        Self { header, wide: false }
    }

    /// A column of `-o wide`.
    pub const fn wide(header: &'static str) -> Self {
        Self { header, wide: true }
    }
}

/// How a table is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// With the wide columns.
    pub wide: bool,
    /// Without the header line (`--no-headers`).
    pub no_headers: bool,
}

/// Rows under headers. Cells are made safe for a terminal when they are added.
///
/// ```
/// use kubectl_core::table::{Column, Look, Table};
/// let mut table = Table::new(&[Column::new("NAME"), Column::new("AGE"), Column::wide("UID")]);
/// table.row(["default", "2d", "1-2-3"]);
/// assert_eq!(table.render(Look::default()), "NAME      AGE\ndefault   2d\n");
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, bool)>,
    rows: Vec<Vec<String>>,
    /// Width of the content of each column as already printed: it only grows, as kubectl's does while it watches.
    printed: Vec<usize>,
    headed: bool,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[Column]) -> Self {
        Self::with_headers(
            columns
                .iter()
                .map(|column| (column.header.to_owned(), column.wide))
                .collect(),
        )
    }

    pub(crate) fn with_headers(columns: Vec<(String, bool)>) -> Self {
        let printed = vec![0; columns.len()];
        Self {
            columns,
            rows: Vec::new(),
            printed,
            headed: false,
        }
    }

    /// Adds a row; missing cells stay empty, surplus ones are dropped.
    pub fn row<I>(&mut self, cells: I) -> &mut Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut row: Vec<String> = cells.into_iter().map(|text| ui::cell(text.as_ref())).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        self
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The whole table, each line ended; an empty text without rows.
    pub fn render(mut self, look: Look) -> String {
        self.take(look)
    }

    /// What has been added since the last call, for long lists and for watching: the header comes with the first batch,
    /// and columns keep the width they had.
    pub fn take(&mut self, look: Look) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|&i| look.wide || !self.columns[i].1)
            .collect();
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        if !look.no_headers && !self.headed {
            table.set_header(shown.iter().map(|&i| self.columns[i].0.as_str()));
        }
        self.headed = true;
        for mut row in self.rows.drain(..) {
            table.add_row(shown.iter().map(|&i| std::mem::take(&mut row[i])));
        }
        let content = table.column_max_content_widths();
        for (at, column) in table.column_iter_mut().enumerate() {
            let printed = &mut self.printed[shown[at]];
            // kubectl's tabwriter: cells of at least 6, of which 3 are padding.
            *printed = (*printed)
                .max(usize::from(content.get(at).copied().unwrap_or_default()))
                .max(3);
            column.set_padding((0, 3));
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed((*printed + 3) as u16)));
        }
        let mut text = table.trim_fmt();
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::new("CURRENT"),
        Column::new("NAME"),
        Column::new("NS"),
        Column::new("AUTHINFO"),
        Column::wide("X"),
    ];

    #[test]
    fn looks_as_kubectl_prints_it() {
        let mut table = Table::new(COLUMNS);
        table
            .row(["*", "kind-kind", "a", "", "w"])
            .row(["", "b", "default", "user", ""]);
        assert_eq!(
            table.clone().render(Look::default()),
            "CURRENT   NAME        NS        AUTHINFO\n*         kind-kind   a\n          b           default   user\n"
        );
        assert_eq!(
            table.render(Look {
                wide: true,
                no_headers: true
            }),
            "*     kind-kind   a                w\n      b           default   user\n"
        );
    }

    #[test]
    fn without_rows_there_is_nothing_not_even_a_header() {
        assert_eq!(Table::new(COLUMNS).render(Look::default()), "");
    }

    #[test]
    fn a_cell_cannot_break_the_table() {
        let mut table = Table::new(&[Column::new("A"), Column::new("B")]);
        table.row(["one\ntwo", "\u{1b}[1m"]);
        assert_eq!(table.render(Look::default()), "A        B\none...   ^[[1m\n");
    }

    #[test]
    fn a_later_batch_keeps_the_width_of_the_first() {
        let mut table = Table::new(&[Column::new("NAME"), Column::new("AGE")]);
        table.row(["a-long-name", "1s"]);
        assert_eq!(table.take(Look::default()), "NAME          AGE\na-long-name   1s\n");
        table.row(["b", "2s"]);
        assert_eq!(table.take(Look::default()), "b             2s\n");
    }
}
