//! The output of a bench: tables, budgets that are exceeded, and the exit code.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

/// A table that prints each row at once.
pub(crate) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Prints the heading. Each column has a title and a width in characters. The first column is
    /// aligned left, the others right.
    pub(crate) fn new(columns: &[(&str, usize)]) -> Self {
        let table = Self { widths: columns.iter().map(|(_, width)| *width).collect() };
        table.row(columns.iter().map(|(title, _)| title));
        table
    }

    /// Prints one row.
    pub(crate) fn row(&self, cells: impl IntoIterator<Item = impl Display>) {
        let mut line = String::new();
        for (column, (cell, width)) in cells.into_iter().zip(&self.widths).enumerate() {
            let cell = cell.to_string();
            match column {
                0 => line += &format!("{cell:<width$}"),
                _ => line += &format!("  {cell:>width$}"),
            }
        }
        println!("{}", line.trim_end());
    }
}

/// The limits that a bench enforces, in bytes and in counts.
#[derive(Default)]
pub(crate) struct Budgets {
    overruns: Vec<String>,
}

impl Budgets {
    /// Records an overrun if `measured` is greater than `limit`. `what` names the figure and its
    /// unit.
    pub(crate) fn at_most<N>(&mut self, what: impl Display, measured: N, limit: N)
    where
        N: PartialOrd + Display,
    {
        if measured > limit {
            self.overruns.push(format!("{what}: measured {measured:.2}, limit {limit:.2}"));
        }
    }
}

/// Prints the outcome of a bench. Returns a failure if the bench stopped with an error or a budget
/// is exceeded.
pub(crate) fn finish(bench: &str, outcome: io::Result<Budgets>) -> ExitCode {
    let overruns = match outcome {
        Ok(budgets) => budgets.overruns,
        Err(error) => vec![error.to_string()],
    };
    for overrun in &overruns {
        eprintln!("{bench}: FAILED: {overrun}");
    }
    if overruns.is_empty() {
        println!("{bench}: every budget is met\n");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// Sorts `values` and returns a percentile: 0 is the minimum, 50 the median, 100 the maximum.
/// Returns 0 if `values` is empty.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = values.len().saturating_sub(1) * percent / 100;
    values.get(rank).copied().unwrap_or_default()
}

/// Formats `count` with a comma between groups of three digits.
pub(crate) fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
