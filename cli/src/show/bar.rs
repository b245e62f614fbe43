//! How far something is: a bar for people, events for programs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::{Event, Show};
use crate::{clock, quote};

/// How often programs are told.
const EVERY: Duration = Duration::from_millis(250);

/// How often the rate is shown anew while nothing arrives.
const TICK: Duration = Duration::from_millis(500);

/// The longest name beside a bar, in characters.
const NAME: usize = 32;

/// How far one thing is. Clones are the same bar, which goes away with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Bar(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bar: ProgressBar,
    show: Show,
    name: String,
    told: Mutex<Told>,
}

/// What programs were told last.
#[derive(Debug)]
struct Told {
    at: Option<Instant>,
    done: Option<u64>,
}

impl Bar {
    pub(super) fn new(show: &Show, total: Option<u64>, name: &str) -> Bar {
        let bar = ProgressBar::with_draw_target(total, indicatif::ProgressDrawTarget::hidden());
        bar.set_style(style(total.is_some(), show.colours()));
        bar.set_message(shortened(name));
        let bar = if show.draws_bars() { show.report().bars().add(bar) } else { bar };
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        let told = Mutex::new(Told { at: None, done: None });
        Bar(Arc::new(Inner { bar, show: show.clone(), name: name.to_owned(), told }))
    }

    /// So many bytes of it have arrived by now. A smaller number than before is late, and ignored.
    pub(crate) fn acknowledged(&self, bytes: u64) {
        let Inner { bar, .. } = &*self.0;
        if bytes > bar.position() {
            bar.set_position(bytes);
            self.tell(false);
        }
    }

    /// So many more bytes of it have arrived.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.bar.inc(bytes);
        self.tell(false);
    }

    /// So many bytes of it are there by now, some of which were there before: they say nothing about the rate.
    pub(crate) fn resumed(&self, bytes: u64) {
        let Inner { bar, .. } = &*self.0;
        // A rate begins with what the last tick has seen. As long as there are steady ticks there is no other.
        bar.disable_steady_tick();
        self.acknowledged(bytes);
        bar.tick();
        bar.reset_eta();
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
    }

    /// It has ended, well or not.
    pub(crate) fn finish(&self) {
        self.tell(true);
        self.0.bar.finish_and_clear();
    }

    /// Tells programs, not too often unless it `matters`.
    fn tell(&self, matters: bool) {
        let Inner { bar, show, name, told } = &*self.0;
        if !show.is_json() {
            return;
        }
        let (now, done) = (clock::now(), bar.position());
        {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let recent = told.at.is_some_and(|at| now.saturating_duration_since(at) < EVERY);
            if told.done == Some(done) || (recent && !matters) {
                return;
            }
            *told = Told { at: Some(now), done: Some(done) };
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is a positive number"
        )]
        let rate = bar.per_sec() as u64;
        show.event(&Event::Progress { name: name.clone(), done, total: bar.length(), rate });
    }
}

fn style(known: bool, colours: bool) -> ProgressStyle {
    let template = match (known, colours) {
        (true, true) => "{msg} {wide_bar:.cyan/dim} {done}/{total}  {rate}  {left}",
        (true, false) => "{msg} [{wide_bar}] {done}/{total}  {rate}  {left}",
        (false, true) => "{msg} {spinner:.cyan} {done}  {rate}",
        (false, false) => "{msg} {spinner} {done}  {rate}",
    };
    ProgressStyle::with_template(template)
        .expect("the constants are valid templates")
        .progress_chars(if colours { "━━─" } else { "=> " })
        .tick_chars("|/-\\ ")
        .with_key("done", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&quote::bytes(state.pos()));
        })
        .with_key("total", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&quote::bytes(state.len().unwrap_or(0)));
        })
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate is a positive number"
            )]
            let rate = state.per_sec() as u64;
            let _ = write!(out, "{}/s", quote::bytes(rate));
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&left(state.eta(), state.per_sec()));
        })
}

/// The remaining time for people.
fn left(time: Duration, rate: f64) -> String {
    let seconds = time.as_secs();
    // Nothing moves, or it would take longer than anybody waits.
    if rate < 1.0 || seconds >= 100 * 3600 {
        return "--:--".to_owned();
    }
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A name that leaves room for the bar.
fn shortened(name: &str) -> String {
    let name = quote::printable(name);
    match name.char_indices().nth(NAME) {
        None => name,
        Some(_) => name.chars().take(NAME - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_is_valid() {
        for (known, colours) in [(true, true), (true, false), (false, true), (false, false)] {
            drop(style(known, colours));
        }
    }

    #[test]
    fn the_remaining_time_reads_well() {
        let shown = |seconds| left(Duration::from_secs(seconds), 1000.0);
        assert_eq!([shown(0), shown(59), shown(61), shown(3_661)], ["0:00", "0:59", "1:01", "1:01:01"]);
        assert_eq!(shown(400_000), "--:--");
        assert_eq!(left(Duration::from_secs(5), 0.0), "--:--", "nothing moves");
    }

    #[test]
    fn names_leave_room_and_cannot_drive_the_terminal() {
        assert_eq!(shortened("a\x1b[2J"), "a\\u{1b}[2J");
        let long = shortened(&"ü".repeat(200));
        assert!(long.chars().count() == NAME && long.ends_with('…'), "{long}");
    }

    #[test]
    fn a_late_number_does_not_go_back() {
        let show = Show::silent();
        let bar = show.progress(Some(100), "x");
        bar.acknowledged(50);
        bar.acknowledged(40);
        assert_eq!(bar.0.bar.position(), 50);
        bar.add(10);
        assert_eq!(bar.0.bar.position(), 60);
        bar.resumed(70);
        bar.acknowledged(100);
        assert_eq!(bar.0.bar.position(), 100);
        bar.finish();
    }

    #[test]
    fn what_was_there_before_says_nothing_about_the_rate() {
        let bar = Show::silent().progress(Some(1 << 40), "x");
        bar.0.bar.enable_steady_tick(Duration::from_secs(1000));
        bar.resumed(1 << 39);
        std::thread::sleep(Duration::from_millis(10));
        bar.acknowledged((1 << 39) + 1);
        bar.0.bar.tick();
        let rate = bar.0.bar.per_sec();
        assert!(rate < f64::from(1 << 30), "{rate}");
        bar.finish();
    }
}
