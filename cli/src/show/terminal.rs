//! The terminal that the process belongs to, whatever its standard streams are.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::exit::Failure;

/// Asks questions there.
#[derive(Debug)]
pub(crate) struct Terminal {
    input: File,
    output: File,
}

impl Terminal {
    #[cfg(unix)]
    pub(crate) fn open() -> io::Result<Terminal> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        Ok(Terminal { input: tty.try_clone()?, output: tty })
    }

    #[cfg(not(unix))]
    pub(crate) fn open() -> io::Result<Terminal> {
        let open = |name: &str| OpenOptions::new().read(true).write(true).open(name);
        Ok(Terminal { input: open("CONIN$")?, output: open("CONOUT$")? })
    }

    /// Asks until the answer is clear. An empty one is the default, if there is one; the end of the input is no.
    ///
    /// # Cancel safety
    /// Dropping the future ends the line of the question, and leaves a thread that waits for the answer, which the process
    /// does not wait for.
    pub(crate) async fn ask(self, question: String, default: Option<bool>) -> Result<bool, Failure> {
        let (sender, answer) = oneshot::channel();
        let mut open = OpenLine(self.output.try_clone().ok());
        let asked = std::thread::Builder::new().name("tty".to_owned()).spawn(move || {
            let _ = sender.send(self.question(&question, default));
        });
        let answer = match asked {
            Ok(_) => answer.await.unwrap_or(Ok(false)),
            Err(error) => Err(error),
        };
        // Whoever answers ends the line.
        open.0 = None;
        answer.map_err(|error| Failure::io("could not ask on the terminal", &error))
    }

    fn question(mut self, question: &str, default: Option<bool>) -> io::Result<bool> {
        let choice = match default {
            None => "[yes/no]",
            Some(true) => "[Y/n]",
            Some(false) => "[y/N]",
        };
        loop {
            self.output.write_all(format!("{question} {choice} ").as_bytes())?;
            let Some(line) = self.line()? else { return Ok(false) };
            if let Some(answer) = understand(&line, default) {
                return Ok(answer);
            }
        }
    }

    /// What is typed up to the next end of a line.
    pub(super) fn line(&self) -> io::Result<Option<String>> {
        let mut line = String::new();
        Ok((BufReader::new(&self.input).read_line(&mut line)? > 0).then_some(line))
    }

    pub(super) fn write(&mut self, text: &str) -> io::Result<()> {
        self.output.write_all(text.as_bytes())
    }
}

/// A line that is not ended, unless somebody else ends it.
struct OpenLine(Option<File>);

impl Drop for OpenLine {
    fn drop(&mut self) {
        if let Some(output) = &mut self.0 {
            // A terminal that is gone shows no lines.
            let _ = output.write_all(b"\n");
        }
    }
}

fn understand(answer: &str, default: Option<bool>) -> Option<bool> {
    match answer.trim().to_lowercase().as_str() {
        "yes" | "y" => Some(true),
        "no" | "n" => Some(false),
        "" => default,
        _ => None,
    }
}

/// Puts the terminal back as it was. A line editor does so itself when it ends, but not when the process ends first.
#[derive(Debug)]
pub(super) struct Restore {
    editing: Editing,
    #[cfg(unix)]
    before: Option<(File, rustix::termios::Termios)>,
}

impl Restore {
    pub(super) fn new() -> Restore {
        #[cfg(unix)]
        let before = File::open("/dev/tty")
            .ok()
            .and_then(|tty| rustix::termios::tcgetattr(&tty).ok().map(|state| (tty, state)));
        Restore {
            editing: Editing::default(),
            #[cfg(unix)]
            before,
        }
    }

    /// For the thread of the line editor.
    pub(super) fn editing(&self) -> Editing {
        self.editing.clone()
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.editing.end(Editing::CHANGE);
        #[cfg(unix)]
        if let Some((tty, state)) = &self.before {
            // A terminal that is gone needs no repair.
            let _ = rustix::termios::tcsetattr(tty, rustix::termios::OptionalActions::Now, state);
        }
    }
}

/// Whether a line editor may change the mode of the terminal, or is about to. It reads in a thread that cannot be stopped:
/// a mode that it set after the terminal was put back would stay.
#[derive(Debug, Clone, Default)]
pub(super) struct Editing(Arc<(Mutex<Edit>, Condvar)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Edit {
    /// The mode does not change now.
    #[default]
    Settled,
    /// The editor changes the mode.
    Begins,
    /// Nobody waits for a line any more.
    Ended,
}

impl Editing {
    /// How long the end waits for an editor that changes the mode, which takes two calls of the system.
    const CHANGE: Duration = Duration::from_secs(1);

    /// The editor is called now, and changes the mode, unless this says that nobody waits for a line.
    pub(super) fn begin(&self) -> bool {
        self.go_on(Edit::Begins)
    }

    /// The mode has been changed, or put back.
    pub(super) fn settled(&self) {
        self.go_on(Edit::Settled);
    }

    fn go_on(&self, to: Edit) -> bool {
        let mut edit = self.edit();
        if *edit == Edit::Ended {
            return false;
        }
        *edit = to;
        self.0.1.notify_all();
        true
    }

    /// From now on the mode stays as it is made. Waits no longer than `limit` for an editor that changes it.
    fn end(&self, limit: Duration) {
        let changing = self.0.1.wait_timeout_while(self.edit(), limit, |edit| *edit == Edit::Begins);
        *changing.unwrap_or_else(PoisonError::into_inner).0 = Edit::Ended;
    }

    fn edit(&self) -> MutexGuard<'_, Edit> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many columns the terminal behind standard error has, where the system tells.
pub(super) fn columns() -> Option<usize> {
    #[cfg(unix)]
    return rustix::termios::tcgetwinsize(io::stderr())
        .ok()
        .map(|size| size.ws_col.into())
        .filter(|columns| *columns > 0);
    #[cfg(not(unix))]
    return None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_answers_count() {
        assert_eq!(understand("YES\n", None), Some(true));
        assert_eq!(understand("n\r\n", Some(true)), Some(false));
        assert_eq!(understand("\n", None), None);
        assert_eq!(understand("\n", Some(true)), Some(true));
        assert_eq!(understand("", Some(false)), Some(false));
        assert_eq!(understand("yes?", Some(true)), None);
    }

    #[test]
    fn the_end_waits_for_an_editor_that_changes_the_mode() {
        let editing = Editing::default();
        assert!(editing.begin());
        let end = editing.clone();
        let ended = std::thread::spawn(move || end.end(Duration::from_secs(60)));
        // An end that does not wait comes within this, and makes the test fail; it may also come later unnoticed.
        std::thread::sleep(Duration::from_millis(50));
        assert!(!ended.is_finished(), "the mode may still change");
        editing.settled();
        ended.join().unwrap();
        assert!(!editing.begin(), "nobody waits for a line");
    }
}
