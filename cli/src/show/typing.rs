//! A code that is typed, with Tab: the mailbox server completes nameplates, the word list completes words.

use std::{
    io::{self, BufRead, IsTerminal},
    sync::Arc,
    time::Duration,
};

use dilated::{CodeInput, InputError};
use rustyline::{
    CompletionType, Config, Context, Editor, Helper,
    completion::{Completer, Pair},
    config::Behavior,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::DefaultHistory,
    validate::Validator,
};
use tokio::{runtime::Handle, sync::oneshot};

use super::terminal::{Editing, Restore, Terminal};
use crate::exit::{Failure, Kind};

const PROMPT: &str = "The code of the other side (Tab completes): ";

/// How long Tab waits for the mailbox server to confirm the nameplate.
const CLAIM: Duration = Duration::from_secs(2);

/// How a line that was asked for ended without one.
#[derive(Debug)]
enum NoLine {
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of standard input.
    End,
    Broken(io::Error),
}

/// Where lines come from: a line editor, a terminal that is too simple for one, or standard input.
trait Lines {
    /// The next line. It begins with `initial`, if it can.
    fn next(&mut self, initial: &str) -> Result<String, NoLine>;

    /// Says why the last line was not taken.
    fn complain(&mut self, why: &InputError) -> Result<(), NoLine>;
}

/// Why there is no code.
#[derive(Debug)]
pub(super) enum NoCode {
    /// The wormhole ended. Closing it says why.
    Closed,
    Failed(Failure),
}

impl From<Failure> for NoCode {
    fn from(failure: Failure) -> NoCode {
        NoCode::Failed(failure)
    }
}

/// Asks for the code until it is one, and uses it.
///
/// # Cancel safety
/// Dropping the future puts the terminal back as it was. A thread that the process does not wait for stays behind.
pub(super) async fn input(input: CodeInput) -> Result<(), NoCode> {
    let restore = Restore::new();
    let editing = restore.editing();
    let input = Arc::new(input);
    let (sender, typed) = oneshot::channel();
    let runtime = Handle::current();
    let thread = std::thread::Builder::new().name("code".to_owned());
    let shared = input.clone();
    let spawned = thread.spawn(move || {
        let _ = sender.send(ask(&shared, runtime, editing));
    });
    spawned.map_err(|e| Failure::io("could not ask for the code", &e))?;
    let closed = async {
        match input.wait_for_wordlist().await {
            Err(_) => {}
            // Later ends are noticed when the line is complete.
            Ok(()) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = typed => {
            result.unwrap_or_else(|_| Err(Failure::new(Kind::Local, "the line editor failed").into()))
        }
        () = closed => Err(NoCode::Closed),
    }
}

fn ask(input: &Arc<CodeInput>, runtime: Handle, editing: Editing) -> Result<(), NoCode> {
    let broken = |e: io::Error| Failure::io("could not ask for the code", &e);
    if !io::stdin().is_terminal() {
        return until_taken(input, &mut Piped);
    }
    if is_simple(std::env::var("TERM").ok().as_deref()) {
        return until_taken(input, &mut Simple(Terminal::open().map_err(broken)?));
    }
    let config = Config::builder()
        .behavior(Behavior::PreferTerm)
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        .build();
    let mut editor = Editor::<Completions, DefaultHistory>::with_config(config)
        .map_err(|e| broken(io::Error::other(e.to_string())))?;
    editor.set_helper(Some(Completions { input: input.clone(), runtime, editing: editing.clone() }));
    until_taken(input, &mut Edited { editor, editing })
}

/// Terminals that cannot move the cursor.
fn is_simple(term: Option<&str>) -> bool {
    term.is_some_and(|term| {
        ["dumb", "cons25", "emacs"].iter().any(|simple| simple.eq_ignore_ascii_case(term))
    })
}

fn until_taken(input: &CodeInput, lines: &mut dyn Lines) -> Result<(), NoCode> {
    let mut initial = String::new();
    loop {
        let line = lines.next(&initial).map_err(|e| match e {
            NoLine::Interrupted => Failure::interrupted(),
            NoLine::End => Failure::usage("no code was typed; it is what the other side's program shows"),
            NoLine::Broken(error) => Failure::io("could not ask for the code", &error),
        })?;
        match input.finish_line(line.trim()) {
            Ok(()) => return Ok(()),
            Err(InputError::Closed) => return Err(NoCode::Closed),
            Err(error) => {
                initial = match &error {
                    InputError::AlreadyInputNameplate { committed } => format!("{committed}-"),
                    _ => line.trim().to_owned(),
                };
                if lines.complain(&error).is_err() {
                    let message = format!("{error}. A code looks like 7-purple-sausages.");
                    return Err(Failure::usage(message).into());
                }
            }
        }
    }
}

struct Edited {
    editor: Editor<Completions, DefaultHistory>,
    editing: Editing,
}

impl Lines for Edited {
    fn next(&mut self, initial: &str) -> Result<String, NoLine> {
        if !self.editing.begin() {
            return Err(NoLine::End);
        }
        let line = self.editor.readline_with_initial(PROMPT, (initial, ""));
        self.editing.settled();
        line.map_err(|error| match error {
            ReadlineError::Interrupted => NoLine::Interrupted,
            ReadlineError::Eof => NoLine::End,
            ReadlineError::Io(error) => NoLine::Broken(error),
            error => NoLine::Broken(io::Error::other(error.to_string())),
        })
    }

    fn complain(&mut self, why: &InputError) -> Result<(), NoLine> {
        Terminal::open().and_then(|mut terminal| complain(&mut terminal, why)).map_err(NoLine::Broken)
    }
}

struct Simple(Terminal);

impl Lines for Simple {
    fn next(&mut self, _: &str) -> Result<String, NoLine> {
        self.0.write(PROMPT).map_err(NoLine::Broken)?;
        self.0.line().map_err(NoLine::Broken)?.ok_or(NoLine::End)
    }

    fn complain(&mut self, why: &InputError) -> Result<(), NoLine> {
        complain(&mut self.0, why).map_err(NoLine::Broken)
    }
}

fn complain(terminal: &mut Terminal, why: &InputError) -> io::Result<()> {
    terminal.write(&format!("{why}\n"))
}

/// Standard input that is no terminal: one line, and nobody to correct it.
struct Piped;

impl Lines for Piped {
    fn next(&mut self, _: &str) -> Result<String, NoLine> {
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(0) => Err(NoLine::End),
            Ok(_) => Ok(line),
            Err(error) => Err(NoLine::Broken(error)),
        }
    }

    fn complain(&mut self, _: &InputError) -> Result<(), NoLine> {
        Err(NoLine::End)
    }
}

/// Completes what is typed.
struct Completions {
    input: Arc<CodeInput>,
    runtime: Handle,
    editing: Editing,
}

impl Completions {
    /// The whole lines that the beginning of one can become.
    fn of(&self, line: &str) -> Vec<String> {
        let complete = || self.input.complete_line(line).unwrap_or_default();
        let completions = complete();
        if completions.is_empty() && line.contains('-') {
            // Words are completed as soon as the nameplate is claimed, which takes a round trip.
            let claimed = async { tokio::time::timeout(CLAIM, self.input.wait_for_wordlist()).await };
            if matches!(self.runtime.block_on(claimed), Ok(Ok(()))) {
                return complete();
            }
        }
        completions
    }
}

impl Completer for Completions {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let candidates = self.of(line.get(..pos).unwrap_or(line)).into_iter().map(|replacement| {
            // What is listed is the part that differs.
            let display = replacement.trim_end_matches('-').rsplit('-').next().unwrap_or_default().to_owned();
            Pair { display, replacement }
        });
        Ok((0, candidates.collect()))
    }
}

impl Hinter for Completions {
    type Hint = String;

    /// Called whenever the line is drawn, and so for the first time as soon as the terminal is in the editor's mode, and
    /// when the line has changed: the first hyphen commits to the nameplate, so that its claim is under way while the
    /// words are typed.
    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.editing.settled();
        if line.contains('-') {
            // A nameplate that is none is told when the line is complete.
            let _ = self.input.complete_line(line);
        }
        None
    }
}

impl Highlighter for Completions {}

impl Validator for Completions {}

impl Helper for Completions {}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use dilated::Wormhole;

    use super::*;
    use crate::loopback::Servers;

    /// A guard against hanging.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A side that has a code, and one that types it.
    struct Pair {
        code: String,
        a: Wormhole,
        b: Wormhole,
        completions: Completions,
    }

    impl Pair {
        async fn start() -> Pair {
            let servers = Servers::start().await.unwrap();
            let (a, b) =
                (servers.wormhole("example.org/x").unwrap(), servers.wormhole("example.org/x").unwrap());
            let code = a.allocate_code(2).await.unwrap().to_string();
            let input = Arc::new(b.input_code().unwrap());
            let completions =
                Completions { input, runtime: Handle::current(), editing: Restore::new().editing() };
            Pair { code, a, b, completions }
        }

        /// Runs what a line editor would run, in a thread as there.
        async fn typing<T: Send + 'static>(
            self,
            what: impl FnOnce(&Pair) -> T + Send + 'static,
        ) -> (Pair, T) {
            let typing = tokio::task::spawn_blocking(move || {
                let result = what(&self);
                (self, result)
            });
            tokio::time::timeout(PATIENCE, typing).await.expect("it does not hang").unwrap()
        }

        async fn meet(&self) {
            let met = async { tokio::try_join!(self.a.verifier(), self.b.verifier()) };
            tokio::time::timeout(PATIENCE, met).await.expect("in time").expect("the same code");
        }
    }

    /// The line that is made, and what is listed.
    type Completion = (String, String);

    /// What Tab gives.
    fn tab(completions: &Completions, line: &str) -> Vec<Completion> {
        let history = DefaultHistory::new();
        let (start, pairs) = completions.complete(line, line.len(), &Context::new(&history)).unwrap();
        assert_eq!(start, 0, "whole lines are replaced");
        pairs.into_iter().map(|pair| (pair.replacement, pair.display)).collect()
    }

    /// Lines that were typed before, and the complaints about them.
    #[derive(Default)]
    struct Typed {
        lines: VecDeque<String>,
        begins: Vec<String>,
        complaints: Vec<String>,
    }

    impl Lines for Typed {
        fn next(&mut self, initial: &str) -> Result<String, NoLine> {
            self.begins.push(initial.to_owned());
            self.lines.pop_front().ok_or(NoLine::End)
        }

        fn complain(&mut self, why: &InputError) -> Result<(), NoLine> {
            self.complaints.push(why.to_string());
            Ok(())
        }
    }

    fn typed<const N: usize>(lines: [&str; N]) -> Typed {
        Typed { lines: lines.map(str::to_owned).into(), ..Typed::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tab_completes_the_number_and_the_words_of_the_other_side() {
        let pair = Pair::start().await;
        let (pair, ()) = pair
            .typing(|pair| {
                let (nameplate, words) = pair.code.split_once('-').unwrap();
                // The list comes from the server, and Tab asks again.
                let wanted = (format!("{nameplate}-"), nameplate.to_owned());
                let deadline = crate::clock::now() + PATIENCE;
                while !tab(&pair.completions, "").contains(&wanted) {
                    assert!(crate::clock::now() < deadline, "the nameplate is never listed");
                    std::thread::sleep(Duration::from_millis(20));
                }
                // At once after the hyphen: Tab waits until the nameplate is claimed.
                let (first, second) = words.split_once('-').unwrap();
                let line = format!("{nameplate}-{}", &first[..first.len() - 1]);
                let found = tab(&pair.completions, &line);
                assert!(
                    found.contains(&(format!("{nameplate}-{first}-"), first.to_owned())),
                    "{line}: {found:?}"
                );
                let line = format!("{nameplate}-{first}-{}", &second[..2]);
                let found = tab(&pair.completions, &line);
                assert!(found.contains(&(pair.code.clone(), second.to_owned())), "{line}: {found:?}");
                until_taken(&pair.completions.input, &mut typed([&pair.code])).unwrap();
            })
            .await;
        pair.meet().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_hyphen_commits_and_mistakes_may_be_corrected() {
        let pair = Pair::start().await;
        let (pair, ()) = pair
            .typing(|pair| {
                let nameplate = pair.code.split('-').next().unwrap().to_owned();
                let history = DefaultHistory::new();
                let hint = |line: &str| pair.completions.hint(line, line.len(), &Context::new(&history));
                assert_eq!(hint(&nameplate), None);
                assert!(pair.completions.input.word_completions("").is_err(), "nothing is committed yet");
                hint(&format!("{nameplate}-"));
                assert!(pair.completions.input.word_completions("").is_ok(), "the hyphen committed");
                let other = format!("{}-a-b", nameplate.parse::<u64>().unwrap() + 1);
                let mut lines = typed([&other, &nameplate, "x y", &format!(" {} ", pair.code)]);
                until_taken(&pair.completions.input, &mut lines).unwrap();
                let again = format!("{nameplate}-");
                assert_eq!(lines.begins, ["", again.as_str(), nameplate.as_str(), "x y"]);
                assert!(lines.complaints[0].contains("already claimed"), "{:?}", lines.complaints);
                assert!(lines.complaints[1].contains("incomplete"), "{:?}", lines.complaints);
            })
            .await;
        pair.meet().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_gives_up_is_told_what_to_do() {
        let pair = Pair::start().await;
        let (pair, failure) =
            pair.typing(|pair| until_taken(&pair.completions.input, &mut typed([])).unwrap_err()).await;
        let NoCode::Failed(failure) = failure else { panic!("{failure:?}") };
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(failure.to_string().contains("no code was typed"), "{failure}");
        pair.b.close().await.unwrap_err();
        let code = pair.code.clone();
        let (_pair, failure) = pair
            .typing(move |pair| until_taken(&pair.completions.input, &mut typed([&code])).unwrap_err())
            .await;
        assert!(matches!(failure, NoCode::Closed), "{failure:?}");
    }

    #[test]
    fn simple_terminals_are_known() {
        assert!(is_simple(Some("dumb")) && is_simple(Some("Emacs")));
        assert!(!is_simple(Some("xterm-256color")) && !is_simple(None));
    }
}
