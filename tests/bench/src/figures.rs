//! Medians, ratios, and the tables of the documentation.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::cost::Cost;

/// The median: the middle value, or the mean of the two middle values.
pub(crate) fn median(values: impl IntoIterator<Item = u64>) -> f64 {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[half] as f64,
        _ => f64::midpoint(values[half - 1] as f64, values[half] as f64),
    }
}

/// A table with figures in all columns after the first.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The header of [`comparison`].
pub(crate) const COMPARISON: [&str; 5] = ["", "wall", "CPU", "peak memory", "wall, CPU, memory as ratios"];

/// The rows of a comparison with kubectl.
pub(crate) fn comparison(table: &mut Table, theirs: (&str, Cost), ours: (&str, Cost)) {
    let figures = |name: &str, cost: Cost, ratios: String| {
        [
            name.to_owned(),
            format!("{:.1} ms", cost.wall_ms),
            format!("{:.1} ms", cost.cpu_ms),
            format!("{:.1} MiB", cost.peak_mib),
            ratios,
        ]
    };
    let ((their_name, b), (our_name, a)) = (theirs, ours);
    let ratios = [(a.wall_ms, b.wall_ms), (a.cpu_ms, b.cpu_ms), (a.peak_mib, b.peak_mib)];
    let ratios = ratios.map(|(ours, theirs)| ratio(ours, theirs)).join(", ");
    table.add_row(figures(their_name, b, "1".to_owned()));
    table.add_row(figures(our_name, a, ratios));
}

/// `0.31`, or `1/14` for small ratios.
pub(crate) fn ratio(ours: f64, theirs: f64) -> String {
    let ratio = ours / theirs;
    if ratio > 0.0 && ratio < 0.1 {
        format!("1/{:.0}", 1.0 / ratio)
    } else {
        format!("{ratio:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert!((median([9, 1, 5]) - 5.0).abs() < f64::EPSILON);
        assert!((median([9, 1, 5, 6]) - 5.5).abs() < f64::EPSILON);
    }

    #[test]
    fn a_small_ratio_reads_as_a_fraction() {
        assert_eq!([ratio(31.0, 100.0), ratio(5.0, 70.0)], ["0.31", "1/14"]);
    }
}
