//! The table.

use std::fmt::Write as _;
use std::time::Duration;

use dilated_tests::transfer::Program;

use crate::Extent;
use crate::measure::{Failure, Findings, Floor, Medians, Row};

/// Columns of the table.
const COLUMNS: usize = 11;

/// The protocol of which the floor is.
const CLASSIC: &str = "classic";

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
        "of the floor".to_owned(),
        "CPU sender".to_owned(),
        "CPU receiver".to_owned(),
    ];
    let mut table = vec![head];
    table.extend(findings.rows.iter().map(|row| cells(row, findings, extent)));
    table.extend(findings.floor.as_ref().ok().map(|floor| floor_cells(floor, findings, extent)));
    println!("\n{}", if markdown { markdown_table(&table) } else { plain_table(&table) });
    let place = if findings.in_memory { "in memory" } else { "on a disk" };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    match &findings.link {
        Ok(rate) => println!("`dilated bench` of the same run sent {rate:.0} MB/s."),
        Err(how) => println!("`dilated bench` failed: {how}"),
    }
    match &findings.floor {
        Ok(floor) => {
            let parts: Vec<String> =
                floor.parts.iter().map(|(name, rate)| format!("{name} {rate:.0}")).collect();
            println!("Alone, in MB/s: {}.", parts.join(", "));
        }
        Err(how) => println!("the floor failed: {how}"),
    }
    println!("{} rounds on {cores} cores, files {place}.", extent.rounds);
}

fn cells(row: &Row, findings: &Findings, extent: Extent) -> [String; COLUMNS] {
    let speaks = match (row.sender, row.receiver) {
        (Program::Dilated, Program::Dilated) => "dilated-1",
        _ => CLASSIC,
    };
    let (works, figures) = match &row.measured {
        Ok(medians) => {
            let rate = medians.rate(extent.size);
            let floor = findings
                .floor
                .as_ref()
                .ok()
                .filter(|_| speaks == CLASSIC)
                .map(|floor| floor.rate(extent.size));
            let figures = [
                seconds(medians.large.took),
                seconds(medians.small.took),
                rate.map_or_else(nothing, |rate| format!("{rate:.0}")),
                share(rate, findings.link.as_ref().ok().copied()),
                share(rate, floor),
                seconds(medians.large.sender),
                seconds(medians.large.receiver),
            ];
            ("yes", figures)
        }
        Err(Failure::Failed(_)) => ("**no**", std::array::from_fn(|_| nothing())),
        Err(Failure::Missing(_)) => ("not run", std::array::from_fn(|_| nothing())),
    };
    let [large, small, rate, of_link, of_floor, sender, receiver] = figures;
    [
        format!("`{}`", row.sender),
        format!("`{}`", row.receiver),
        speaks.to_owned(),
        works.to_owned(),
        large,
        small,
        rate,
        of_link,
        of_floor,
        sender,
        receiver,
    ]
}

fn floor_cells(floor: &Floor, findings: &Findings, extent: Extent) -> [String; COLUMNS] {
    let rate = Some(floor.rate(extent.size));
    [
        "floor".to_owned(),
        "floor".to_owned(),
        "records".to_owned(),
        "yes".to_owned(),
        seconds(floor.run.took),
        nothing(),
        rate.map_or_else(nothing, |rate| format!("{rate:.0}")),
        share(rate, findings.link.as_ref().ok().copied()),
        share(rate, rate),
        seconds(floor.run.sender),
        seconds(floor.run.receiver),
    ]
}

fn share(rate: Option<f64>, whole: Option<f64>) -> String {
    rate.zip(whole).map_or_else(nothing, |(rate, whole)| format!("{:.0} %", 100.0 * rate / whole))
}

fn nothing() -> String {
    "–".to_owned()
}

fn markdown_table(table: &[[String; COLUMNS]]) -> String {
    let mut text = String::new();
    for (index, row) in table.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            text.push_str("| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        }
    }
    text
}

fn plain_table(table: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
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
