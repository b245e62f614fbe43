//! The results, on the terminal and in `docs/recovery.md`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::Results;
use crate::case::{Case, Pairing, Scenario};
use crate::run::{CAP, CHUNK, GAP, LONG, Outcome, RATE, RUN_UP, WATCHED};

/// The text around the numbers.
const TEMPLATE: &str = include_str!("template.md");

/// A recovery that takes longer is told in the text: a user would look for what is wrong.
const SLOW: Duration = Duration::from_secs(10);

/// Columns of the text.
const WIDTH: usize = 118;

/// How much better a time is that is told to be better.
const BETTER: u32 = 2;

/// One cell of the table.
struct Summary {
    runs: usize,
    /// `None`: over [`CAP`].
    median: Option<Duration>,
    p95: Option<Duration>,
    /// Runs that took longer than [`CAP`].
    missing: usize,
}

impl Summary {
    fn of(outcomes: &[(Case, Outcome)]) -> Summary {
        // What is missing sorts behind all others.
        let mut times: Vec<_> = outcomes.iter().map(|(_, outcome)| outcome.recovery.ok_or(())).collect();
        times.sort();
        // The nearest rank.
        let percentile = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1].ok();
        let missing = times.iter().filter(|time| time.is_err()).count();
        Summary { runs: times.len(), median: percentile(50), p95: percentile(95), missing }
    }

    fn is_slow(&self) -> bool {
        self.median.is_none_or(|median| median > SLOW)
    }

    fn text(&self) -> String {
        let mut text = format!("{} / {}", time(self.median), time(self.p95));
        if self.missing > 0 {
            let _ = write!(text, " ({} of {} not)", self.missing, self.runs);
        }
        text
    }
}

/// The time of a recovery, for people.
pub(crate) fn time(recovery: Option<Duration>) -> String {
    match recovery {
        None => format!(">{}", span(CAP)),
        Some(time) if time == GAP => format!("<{}", span(GAP)),
        Some(time) => span(time),
    }
}

/// A time for people.
fn span(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else if time < Duration::from_secs(10) {
        format!("{:.2} s", time.as_secs_f64())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

impl Results {
    fn summary(&self, scenario: Scenario, pairing: Pairing) -> Option<Summary> {
        self.outcomes.get(&(scenario, pairing)).map(|outcomes| Summary::of(outcomes))
    }

    /// The pairing's scenarios that were run.
    fn of(&self, pairing: Pairing) -> Vec<(Scenario, Summary)> {
        let summary = |scenario| Some((scenario, self.summary(scenario, pairing)?));
        Scenario::ALL.into_iter().filter_map(summary).collect()
    }

    fn table(&self) -> String {
        let mut table = String::from("| what happens |");
        let mut line = String::from("| --- |");
        for pairing in Pairing::ALL {
            let _ = write!(table, " {} |", pairing.name());
            line.push_str(" --- |");
        }
        let _ = write!(table, "\n{line}");
        for scenario in Scenario::ALL {
            let cells = Pairing::ALL.map(|pairing| self.summary(scenario, pairing));
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(table, "\n| {} |", scenario.name());
            for cell in cells {
                let _ = write!(table, " {} |", cell.map_or_else(|| "–".to_owned(), |cell| cell.text()));
            }
        }
        table
    }

    /// What the table says, in sentences.
    fn reading(&self) -> String {
        let mut sentences = vec![self.reading_of_ours()];
        for pairing in Pairing::ALL.into_iter().filter(|pairing| pairing.with_python()) {
            sentences.push(self.reading_of_python(pairing));
        }
        sentences.push(
            "What costs Python its time is the same everywhere: a Leader learns of a loss without a sign from its pings \
             alone, and a Follower from the Leader; a peer that gives a link up first sends what is left to be sent, \
             which a link that swallows everything never takes; a link through the relay is asked for once; and a dead \
             connection with the mailbox server is noticed late."
                .to_owned(),
        );
        sentences.push(self.reading_of_equals());
        if !self.failures.is_empty() {
            sentences
                .push(format!("{} runs failed for other reasons and are in no number.", self.failures.len()));
        }
        sentences.iter().map(|text| wrap(text, "")).collect::<Vec<_>>().join("\n\n")
    }

    fn reading_of_ours(&self) -> String {
        let all = self.of(Pairing::Ours);
        let (runs, missing) =
            all.iter().fold((0, 0), |(runs, missing), (_, cell)| (runs + cell.runs, missing + cell.missing));
        let late = |time: Option<Duration>| time.unwrap_or(Duration::MAX);
        let slowest = all.iter().max_by_key(|(_, cell)| late(cell.median));
        let spread = all.iter().max_by_key(|(_, cell)| late(cell.p95).saturating_sub(late(cell.median)));
        let came = if missing == 0 { "all".to_owned() } else { format!("{} of", runs - missing) };
        let mut text = format!("Of ours with ours {came} {runs} runs recovered within {}.", span(CAP));
        if let (Some((slow, cell)), Some((wide, other))) = (slowest, spread) {
            let _ = write!(text, " The slowest is “{}”, median {}.", slow.name(), time(cell.median));
            let (median, p95) = (time(other.median), time(other.p95));
            let _ = write!(text, " The widest spread is that of “{}”, {median} to {p95}.", wide.name());
        }
        text
    }

    fn reading_of_python(&self, pairing: Pairing) -> String {
        let all = self.of(pairing);
        let (runs, missing) =
            all.iter().fold((0, 0), |(runs, missing), (_, cell)| (runs + cell.runs, missing + cell.missing));
        let slow = names(all.iter().filter(|(_, cell)| cell.is_slow()).map(|(scenario, _)| *scenario));
        let mut text =
            format!("Of “{}” {missing} of {runs} runs took longer than {}.", pairing.name(), span(CAP));
        match slow {
            Some(slow) => {
                let _ = write!(text, " The median is over {} for {slow}.", span(SLOW));
            }
            None => {
                let _ = write!(text, " No median is over {}.", span(SLOW));
            }
        }
        text
    }

    /// Where it hardly matters, or is worse.
    fn reading_of_equals(&self) -> String {
        let equal = |scenario: &Scenario| {
            let (ours, python) =
                (self.summary(*scenario, Pairing::Ours), self.summary(*scenario, Pairing::Python));
            let medians = ours.zip(python).and_then(|(ours, python)| ours.median.zip(python.median));
            medians.is_some_and(|(ours, python)| python < ours * BETTER)
        };
        match names(Scenario::ALL.into_iter().filter(equal)) {
            Some(names) => format!("Two of ours are not twice as fast as two of Python's for {names}."),
            None => "Two of ours are more than twice as fast as two of Python's everywhere.".to_owned(),
        }
    }
}

/// Breaks a line of text where it gets longer than [`WIDTH`], with `indent` before what follows.
fn wrap(text: &str, indent: &str) -> String {
    let (mut wrapped, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            wrapped.push('\n');
            wrapped.push_str(indent);
            column = indent.len();
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// The names of scenarios, if there are any.
fn names(scenarios: impl Iterator<Item = Scenario>) -> Option<String> {
    let names: Vec<String> = scenarios.map(|scenario| format!("“{}”", scenario.name())).collect();
    let (last, others) = names.split_last()?;
    Some(if others.is_empty() { last.clone() } else { format!("{} and {last}", others.join(", ")) })
}

/// Prints the slowest run of each cell, the table, and the failures.
pub(crate) fn print(results: &Results, took: Duration) {
    for ((scenario, pairing), outcomes) in &results.outcomes {
        let slowest = outcomes.iter().max_by_key(|(_, outcome)| outcome.recovery.unwrap_or(Duration::MAX));
        let Some((case, outcome)) = slowest else { continue };
        println!("\n{}, {}: {}", scenario.name(), pairing.name(), Summary::of(outcomes).text());
        println!("  the slowest, {case}: {}", time(outcome.recovery));
        for line in &outcome.story {
            println!("    {line}");
        }
    }
    println!("\n{}\n\n{}\n", results.table(), results.reading());
    for failure in &results.failures {
        println!("failed: {failure}");
    }
    let busy = results.load.percent();
    println!("took {} s; the processors were {busy} % busy while events happened", took.as_secs());
}

/// Writes `docs/recovery.md`.
pub(crate) fn write(results: &Results, runs: usize) -> Result<(), String> {
    let cores =
        std::thread::available_parallelism().map_or_else(|_| "some".to_owned(), |cores| cores.to_string());
    let explained =
        |scenario: Scenario| wrap(&format!("- *{}*: {}.", scenario.name(), scenario.explanation()), "  ");
    let scenarios = Scenario::ALL.map(explained);
    let mut text = TEMPLATE.to_owned();
    for (name, value) in [
        ("cores", cores),
        ("busy", format!("{} %", results.load.percent())),
        ("chunk", format!("{} KiB", CHUNK / 1024)),
        ("interval", span(Duration::from_millis(1000 * CHUNK / RATE))),
        ("gap", span(GAP)),
        ("run-up", span(RUN_UP)),
        ("watched", span(WATCHED)),
        ("long", span(LONG)),
        ("cap", span(CAP)),
        ("runs", runs.to_string()),
        ("scenarios", scenarios.join("\n")),
        ("table", results.table()),
        ("reading", results.reading()),
    ] {
        text = text.replace(&format!("{{{name}}}"), &value);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recovery.md");
    std::fs::write(&path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    println!("{} is written", path.display());
    Ok(())
}
