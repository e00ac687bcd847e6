//! Tables that kubectl could have printed: upper-case headers, three spaces between columns, no borders, no wrapping,
//! and nothing at all, not even headers, when there is nothing to show.

use client::sanitize;
use unicode_width::UnicodeWidthStr as _;

/// Between columns. (kubernetes/cli-runtime v0.33, `pkg/printers/tabwriter.go`.)
const PADDING: usize = 3;
/// The least width of a column's content: with the padding it is kubectl's six.
const LEAST: usize = 3;

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
/// use cli::table::{Column, Look, Table};
/// let mut table = Table::new(&[Column::new("NAME"), Column::new("AGE"), Column::wide("UID")]);
/// table.row(["default", "2d", "1-2-3"]);
/// assert_eq!(table.render(Look::default()), "NAME      AGE\ndefault   2d\n");
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, bool)>,
    /// The cells that are not printed yet, one after the other, and where each ends: a list may have many.
    text: String,
    ends: Vec<usize>,
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
            text: String::new(),
            ends: Vec::new(),
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
        let end = self.ends.len() + self.columns.len();
        for cell in cells.into_iter().take(self.columns.len()) {
            sanitize::push_cell(&mut self.text, cell.as_ref());
            self.ends.push(self.text.len());
        }
        self.ends.resize(end, self.text.len());
        self
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The whole table, each line ended; an empty text without rows.
    pub fn render(mut self, look: Look) -> String {
        self.take(look)
    }

    /// What has been added since the last call, for long lists and for watching: the header comes with the first batch,
    /// and columns keep the width they had.
    pub fn take(&mut self, look: Look) -> String {
        if self.is_empty() {
            return String::new();
        }
        let (text, ends) = (std::mem::take(&mut self.text), std::mem::take(&mut self.ends));
        let cell = |at: usize| {
            let start = if at == 0 { 0 } else { ends[at - 1] };
            &text[start..ends[at]]
        };
        let count = self.columns.len();
        let shown: Vec<usize> = (0..count).filter(|&i| look.wide || !self.columns[i].1).collect();
        let headed = !look.no_headers && !self.headed;
        self.headed = true;
        for &i in &shown {
            let header = if headed { self.columns[i].0.width() } else { 0 };
            let content = (i..ends.len()).step_by(count).map(|at| cell(at).width()).max();
            self.printed[i] = self.printed[i].max(header).max(content.unwrap_or(0)).max(LEAST);
        }
        let mut out = String::with_capacity(text.len() * 2);
        if headed {
            self.line(&mut out, shown.iter().map(|&i| (i, self.columns[i].0.as_str())));
        }
        for row in (0..ends.len()).step_by(count) {
            self.line(&mut out, shown.iter().map(|&i| (i, cell(row + i))));
        }
        out
    }

    /// One line of cells, each with the number of its column.
    fn line<'c>(&self, out: &mut String, cells: impl Iterator<Item = (usize, &'c str)>) {
        for (i, cell) in cells {
            out.push_str(cell);
            let padding = self.printed[i] + PADDING - cell.width();
            out.extend(std::iter::repeat_n(' ', padding));
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
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
    fn later_rows_keep_the_column_width_of_the_first() {
        let mut table = Table::new(&[Column::new("NAME"), Column::new("AGE")]);
        table.row(["a-long-name", "1s"]);
        assert_eq!(table.take(Look::default()), "NAME          AGE\na-long-name   1s\n");
        table.row(["b", "2s"]);
        assert_eq!(table.take(Look::default()), "b             2s\n");
    }
}
