//! What the command tells its user, on standard error: one line for each thing that happens.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dilated::{DilationStatus, Generation, LinkStatus, Path, Recovery};
use indicatif::{MultiProgress, ProgressDrawTarget};

use crate::{
    exit::Failure,
    quote::{self, printable},
};

/// Writes the lines. Nobody may be listening, so no failure to write is one of the command. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Report(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What is drawn below the lines, on a terminal only.
    bars: MultiProgress,
    held: Mutex<Lines>,
}

/// Lines that wait until a question is answered.
#[derive(Debug, Default)]
struct Lines {
    questions: usize,
    waiting: Vec<String>,
}

/// As long as it lives, lines wait.
#[derive(Debug)]
pub(crate) struct Held(Report);

impl Report {
    pub(crate) fn new() -> Report {
        Report(Arc::new(Inner { bars: MultiProgress::new(), held: Mutex::default() }))
    }

    /// One thing that happened.
    pub(crate) fn line(&self, what: impl Display) {
        self.put(format!("dilated: {what}\n"));
    }

    /// A line that is shown as it is, such as a command to copy.
    pub(crate) fn plain(&self, text: impl Display) {
        self.put(format!("{text}\n"));
    }

    /// Text in one piece, above the bars.
    pub(crate) fn put(&self, text: String) {
        let mut held = self.held();
        if held.questions > 0 {
            held.waiting.push(text);
        } else {
            self.0.bars.suspend(|| {
                let _ = io::stderr().lock().write_all(text.as_bytes());
            });
        }
    }

    /// Makes lines wait and bars disappear, because a question is open.
    pub(crate) fn hold(&self) -> Held {
        let mut held = self.held();
        held.questions += 1;
        let _ = self.0.bars.clear();
        self.0.bars.set_draw_target(ProgressDrawTarget::hidden());
        Held(self.clone())
    }

    fn held(&self) -> MutexGuard<'_, Lines> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where bars are added.
    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.0.bars
    }

    /// Writes what is said elsewhere, such as the log, in the same order and place.
    pub(crate) fn writer(&self) -> impl Write + use<> {
        LogWriter(self.clone())
    }

    /// Whether people look at the lines.
    pub(crate) fn is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// The result of a command, on standard output.
    pub(crate) fn output(&self, text: impl Display) -> Result<(), Failure> {
        // In one piece: who reads it may leave after the last line.
        let text = format!("{text}\n");
        let mut output = io::stdout().lock();
        let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::output_closed(),
            _ => Failure::io("could not write standard output", &error),
        })
    }

    /// Tells why the command failed, if it did, and makes its exit status.
    pub(crate) fn end(&self, result: Result<(), Failure>) -> ExitCode {
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                if !failure.is_quiet() {
                    self.line(&failure);
                }
                ExitCode::from(failure.kind().status())
            }
        }
    }
}

/// Takes lines as bytes.
struct LogWriter(Report);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard error is a terminal whose user has nothing against colours.
pub(crate) fn may_colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !unwanted
}

impl Drop for Held {
    fn drop(&mut self) {
        let waiting = {
            let mut held = self.0.held();
            held.questions -= 1;
            if held.questions > 0 {
                return;
            }
            self.0.bars().set_draw_target(ProgressDrawTarget::stderr());
            std::mem::take(&mut held.waiting)
        };
        waiting.into_iter().for_each(|text| self.0.put(text));
    }
}

/// After this long without a path, people want to know what could help.
pub(crate) const NO_PATH_PATIENCE: Duration = Duration::from_secs(30);

/// What to say then.
pub(crate) const NO_PATH_ADVICE: &str = "still no path to the other side. Either one side must be reachable \
     directly (no --no-listen, no firewall in between), or both must reach a relay (--relay tcp:host:port); \
     trying on";

/// Where the last line left the story of the link.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Nothing,
    Connecting,
    Connected(Generation, Path),
    Lost,
    Stopped,
}

/// Turns states of the link into lines, each told once.
#[derive(Debug)]
pub(crate) struct LinkStory {
    told: Told,
}

impl LinkStory {
    pub(crate) fn new() -> LinkStory {
        LinkStory { told: Told::Nothing }
    }

    /// Whether a link is being looked for.
    pub(crate) fn is_searching(&self) -> bool {
        matches!(self.told, Told::Connecting | Told::Lost)
    }

    /// Whether there was a link, and is none now.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.told, Told::Lost)
    }

    /// The line for a state, unless it says nothing new.
    pub(crate) fn tell(&mut self, status: &DilationStatus) -> Option<String> {
        self.tell_link(status.generation, &status.link)
    }

    fn tell_link(&mut self, generation: Generation, link: &LinkStatus) -> Option<String> {
        let (told, line) = match (&self.told, link) {
            (Told::Nothing, LinkStatus::Connecting) => {
                (Told::Connecting, "looking for a path to the other side".to_owned())
            }
            // States may be missed when much happens at once; the generation tells.
            (Told::Connected(before, way), LinkStatus::Connected { path, .. })
                if *before == generation && way == path =>
            {
                return None;
            }
            (told, LinkStatus::Connected { path: way, recovered }) => {
                let path = printable(&way.to_string());
                let line = match recovered {
                    // Without a gap: one link took the place of another.
                    None if matches!(told, Told::Connected(..)) => format!("going on {path}"),
                    None => format!("connected {path}"),
                    Some(Recovery { reason, outage, .. }) => {
                        let outage = quote::duration(*outage);
                        // A loss that was over before anybody looked.
                        let why = match told {
                            Told::Lost => String::new(),
                            _ => format!("lost: {}; ", printable(reason)),
                        };
                        format!("{why}back after {outage} {path}")
                    }
                };
                (Told::Connected(generation, way.clone()), line)
            }
            (Told::Lost, LinkStatus::Reconnecting { .. }) => return None,
            (_, LinkStatus::Reconnecting { reason }) => {
                (Told::Lost, format!("lost: {}; looking for another path", printable(reason)))
            }
            // The command itself says how it ended.
            (_, LinkStatus::Stopped { .. }) => {
                self.told = Told::Stopped;
                return None;
            }
            _ => return None,
        };
        self.told = told;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_told_once() {
        let mut story = LinkStory::new();
        let (first, second) = (Generation::default(), Generation::default().next());
        let path = Path::inbound(([127, 0, 0, 1], 7).into());
        let connected = |recovered| LinkStatus::Connected { path: path.clone(), recovered };
        let recovered = |outage| Some(Recovery { reason: "re\x1bset".to_owned(), outage });
        let lost = |reason: &str| LinkStatus::Reconnecting { reason: reason.to_owned() };
        let mut tell = |generation, link: &LinkStatus| story.tell_link(generation, link);
        assert_eq!(tell(first, &LinkStatus::Waiting), None);
        assert_eq!(
            tell(first, &LinkStatus::Connecting).as_deref(),
            Some("looking for a path to the other side")
        );
        assert_eq!(tell(first, &LinkStatus::Connecting), None);
        assert_eq!(tell(first, &connected(None)).as_deref(), Some("connected <-tcp:127.0.0.1:7"));
        assert_eq!(tell(first, &connected(None)), None);
        let direct =
            LinkStatus::Connected { path: Path::inbound(([127, 0, 0, 1], 8).into()), recovered: None };
        assert_eq!(tell(first, &direct).as_deref(), Some("going on <-tcp:127.0.0.1:8"));
        assert_eq!(
            tell(first, &lost("re\x1bset")).as_deref(),
            Some("lost: re\\u{1b}set; looking for another path")
        );
        assert_eq!(tell(first, &lost("again")), None);
        let back = connected(recovered(Duration::from_secs(6)));
        assert_eq!(tell(second, &back).as_deref(), Some("back after 6.0 s <-tcp:127.0.0.1:7"));
        let back = connected(recovered(Duration::from_millis(3)));
        assert_eq!(
            tell(second.next(), &back).as_deref(),
            Some("lost: re\\u{1b}set; back after 3 ms <-tcp:127.0.0.1:7")
        );
        assert_eq!(tell(second, &LinkStatus::Stopped { error: None }), None);
    }
}
