//! The table.

use std::fmt::Write as _;
use std::time::Duration;

use dilated_tests::transfer::Program;

use crate::Extent;
use crate::measure::{Failure, Findings, Medians, Row};

/// What one pair did, for who watches.
pub(crate) fn sentence(measured: &Result<Medians, Failure>, extent: Extent) -> String {
    match measured {
        Ok(medians) => format!(
            "{} MB/s; {} for {}, {} for a byte",
            medians.rate(extent.size).map_or_else(nothing, |rate| format!("{rate:.0}")),
            seconds(medians.large.took),
            size(extent),
            seconds(medians.small.took)
        ),
        Err(Failure::Missing(why)) => format!("skipped: {why}"),
        Err(Failure::Failed(how)) => format!("failed: {how}"),
    }
}

/// Prints all of it.
pub(crate) fn print(findings: &Findings, extent: Extent, markdown: bool) {
    let head = [
        "from".to_owned(),
        "to".to_owned(),
        "speaks".to_owned(),
        "works".to_owned(),
        format!("{} takes", size(extent)),
        "a byte takes".to_owned(),
        "MB/s".to_owned(),
        "of `dilated bench`".to_owned(),
        "CPU sender".to_owned(),
        "CPU receiver".to_owned(),
    ];
    let mut table = vec![head];
    table.extend(findings.rows.iter().map(|row| cells(row, findings, extent)));
    println!("\n{}", if markdown { markdown_table(&table) } else { plain_table(&table) });
    let place = if findings.in_memory { "in memory" } else { "on a disk" };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    match &findings.link {
        Ok(rate) => println!("`dilated bench` of the same run sent {rate:.0} MB/s."),
        Err(how) => println!("`dilated bench` failed: {how}"),
    }
    println!("{} rounds on {cores} cores, files {place}.", extent.rounds);
}

fn cells(row: &Row, findings: &Findings, extent: Extent) -> [String; 10] {
    let (works, figures) = match &row.measured {
        Ok(medians) => {
            let rate = medians.rate(extent.size);
            let share = rate.zip(findings.link.as_ref().ok()).map(|(rate, link)| 100.0 * rate / link);
            let figures = [
                seconds(medians.large.took),
                seconds(medians.small.took),
                rate.map_or_else(nothing, |rate| format!("{rate:.0}")),
                share.map_or_else(nothing, |share| format!("{share:.0} %")),
                seconds(medians.large.sender),
                seconds(medians.large.receiver),
            ];
            ("yes", figures)
        }
        Err(Failure::Failed(_)) => ("**no**", std::array::from_fn(|_| nothing())),
        Err(Failure::Missing(_)) => ("not run", std::array::from_fn(|_| nothing())),
    };
    let speaks = match (row.sender, row.receiver) {
        (Program::Dilated, Program::Dilated) => "dilated-1",
        _ => "classic",
    };
    let [large, small, rate, share, sender, receiver] = figures;
    [
        format!("`{}`", row.sender),
        format!("`{}`", row.receiver),
        speaks.to_owned(),
        works.to_owned(),
        large,
        small,
        rate,
        share,
        sender,
        receiver,
    ]
}

fn nothing() -> String {
    "–".to_owned()
}

fn markdown_table(table: &[[String; 10]]) -> String {
    let mut text = String::new();
    for (index, row) in table.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            text.push_str("| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        }
    }
    text
}

fn plain_table(table: &[[String; 10]]) -> String {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 10] = std::array::from_fn(width);
    let mut text = String::new();
    for row in table {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn size(extent: Extent) -> String {
    match extent.size {
        whole if whole.is_multiple_of(1 << 30) => format!("{} GiB", whole >> 30),
        part => format!("{} MiB", part >> 20),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
