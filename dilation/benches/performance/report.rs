//! The figures, as lines for people or as a table for a document.

use std::fmt;

use crate::{
    options::{Case, Plan},
    pair::Probe,
};

/// What a figure counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// Of 10^6 bytes.
    MegabytesPerSecond,
    Microseconds,
    PerSecond,
    Bytes,
    /// Of processor, for 10^9 bytes.
    SecondsPerGigabyte,
    /// Times, for 10^6 bytes.
    PerMegabyte,
    /// Bytes, for 10^6 bytes.
    BytesPerMegabyte,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::MegabytesPerSecond => format!("{value:.0} MB/s"),
            Unit::Microseconds => format!("{value:.1} µs"),
            Unit::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
            Unit::PerSecond => format!("{:.1} k/s", value / 1e3),
            Unit::Bytes => format!("{value:.0} B"),
            Unit::SecondsPerGigabyte => format!("{value:.2} s/GB"),
            Unit::PerMegabyte => format!("{value:.2} /MB"),
            Unit::BytesPerMegabyte => format!("{value:.0} B/MB"),
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    None,
    AtLeast(f64),
    AtMost(f64),
    /// Of the baseline.
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// More than the baseline.
    MoreAtMost(f64),
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) ours: f64,
    /// What it is compared with, measured in the same run.
    pub(crate) baseline: Option<(String, f64)>,
    pub(crate) target: Target,
}

impl Figure {
    fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|(_, baseline)| self.ours / baseline)
    }

    /// The target, and whether it was reached.
    fn verdict(&self) -> String {
        let word = |met: bool| if met { "met" } else { "missed" };
        let ratio = self.ratio().unwrap_or(f64::NAN);
        match self.target {
            Target::None => String::new(),
            Target::AtLeast(least) => format!("≥ {} {}", self.unit.show(least), word(self.ours >= least)),
            Target::AtMost(most) => format!("≤ {} {}", self.unit.show(most), word(self.ours <= most)),
            Target::RatioAtLeast(least) => format!("≥ {least:.2} {}", word(ratio >= least)),
            Target::MoreAtMost(most) => {
                let more = self.baseline.as_ref().map_or(f64::NAN, |(_, baseline)| self.ours - baseline);
                format!("≤ {} more {}", self.unit.show(most), word(more <= most))
            }
            Target::RatioAtMost(most) => format!("≤ {most:.2} {}", word(ratio <= most)),
        }
    }

    fn cells(&self, case: Case) -> [String; 6] {
        let (name, baseline) = self.baseline.clone().unzip();
        [
            case.to_string(),
            self.what.clone(),
            self.unit.show(self.ours),
            name.zip(baseline).map_or_else(String::new, |(n, b)| format!("{n}: {}", self.unit.show(b))),
            self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            self.verdict(),
        ]
    }
}

/// Prints figures as they come.
#[derive(Debug)]
pub(crate) struct Report {
    markdown: bool,
}

impl Report {
    pub(crate) fn new(markdown: bool) -> Report {
        Report { markdown }
    }

    /// What is measured, and the head of the table.
    pub(crate) fn begin(&self, plan: &Plan, probe: &Probe) {
        println!("{probe}\n{plan}\n");
        let head = ["case", "what", "ours", "compared with", "ratio", "target"].map(str::to_owned);
        self.row(&head);
        if self.markdown {
            println!("| --- | --- | ---: | --- | ---: | --- |");
        }
    }

    pub(crate) fn figure(&mut self, case: Case, figure: &Figure) {
        self.row(&figure.cells(case));
    }

    /// Something that has no figure.
    pub(crate) fn note(&self, case: Case, what: impl fmt::Display) {
        match self.markdown {
            true => println!("| {case} | {what} | | | | |"),
            false => println!("{case:<9} {what}"),
        }
    }

    fn row(&self, cells: &[String; 6]) {
        let [case, what, ours, baseline, ratio, target] = cells;
        match self.markdown {
            true => println!("| {} |", cells.join(" | ")),
            false => println!("{case:<9} {what:<44} {ours:>12}  {baseline:<40} {ratio:>7}  {target}"),
        }
    }
}
