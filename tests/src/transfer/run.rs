//! Runs a sender and a receiver to their ends.

use std::ffi::OsString;
use std::fmt;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::lab::clock;

/// How long a side has when the other one has ended.
const GRACE: Duration = Duration::from_secs(20);

/// How long the output of a side that ended may take to arrive, and its end after that of its output.
const DRAIN: Duration = Duration::from_secs(5);

/// What is kept of an output.
const KEPT: usize = 1 << 20;

/// Of a tick in `/proc/self/stat`; the kernel tells all programs the same.
const TICK: Duration = Duration::from_millis(10);

/// How one side ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit status. `None` if it was killed, or never started.
    pub status: Option<i32>,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error, or why it was not started.
    pub stderr: String,
    /// The processor time it used, itself and in the kernel.
    pub processor: Duration,
}

impl Ended {
    fn not_started(why: &str) -> Self {
        Self { status: None, stdout: String::new(), stderr: why.to_owned(), processor: Duration::ZERO }
    }

    /// Whether it said that all went well.
    pub fn is_success(&self) -> bool {
        self.status == Some(0)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "ended with {status}")?,
            None => f.write_str("did not end")?,
        }
        for (name, text) in [("standard output", &self.stdout), ("standard error", &self.stderr)] {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                write!(f, "\n      {name}: {line}")?;
            }
        }
        Ok(())
    }
}

/// How both sides ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The one that printed the code.
    pub sender: Ended,
    /// The one that was given it.
    pub receiver: Ended,
    /// From the start of the receiver until both had ended.
    pub took: Duration,
}

impl Outcome {
    /// Whether both said that all went well.
    pub fn is_success(&self) -> bool {
        self.sender.is_success() && self.receiver.is_success()
    }

    /// Whether Python's `wormhole` had bad luck, and the run says nothing: it finds a free port, lets it go, and listens
    /// there later, when somebody else may have it.
    pub fn lost_its_port(&self) -> bool {
        [&self.sender, &self.receiver].iter().any(|side| side.stderr.contains("CannotListenError"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the sender {}\n    the receiver {}", self.sender, self.receiver)
    }
}

/// Starts `sender`, waits for its code, starts what `receiver` makes of it, and waits for both. Who has not ended after
/// `patience`, or some time after the other one, is killed. Only one at a time may run if processor times matter.
pub async fn transfer(
    sender: Command,
    receiver: impl FnOnce(&str) -> Command,
    patience: Duration,
) -> Outcome {
    let mut meter = Meter::new();
    let mut sender = Side::start(sender);
    let Some(code) = sender.code(patience).await else {
        // It has ended, as a rule, since that is why there is none.
        if timeout(DRAIN, sender.over()).await.is_err() {
            let _ = sender.child.kill().await;
        }
        let sender = sender.ended(&mut meter).await;
        return Outcome {
            sender,
            receiver: Ended::not_started("not started: there was no code"),
            took: Duration::ZERO,
        };
    };
    let began = clock();
    let mut receiver = Side::start(receiver(&code));
    wait(&mut sender, &mut receiver, &mut meter, patience).await;
    let took = clock() - began;
    Outcome { sender: sender.ended(&mut meter).await, receiver: receiver.ended(&mut meter).await, took }
}

/// Waits until both have ended, and kills who has not.
async fn wait(sender: &mut Side, receiver: &mut Side, meter: &mut Meter, patience: Duration) {
    let mut end = clock() + patience;
    while !(sender.is_over() && receiver.is_over()) {
        let left = end.saturating_sub(clock());
        tokio::select! {
            // In order, so that one at a time is taken from the kernel, and its processor time is its own.
            biased;
            () = sender.over(), if !sender.is_over() => sender.take(meter),
            () = receiver.over(), if !receiver.is_over() => receiver.take(meter),
            () = sleep(left) => break,
        }
        end = end.min(clock() + GRACE);
    }
    for side in [sender, receiver] {
        if !side.is_over() {
            let _ = side.child.kill().await;
        }
    }
}

/// A running program whose output is kept.
struct Side {
    child: Child,
    outputs: [Output; 2],
    status: Option<i32>,
    processor: Option<Duration>,
}

impl Side {
    fn start(mut command: Command) -> Self {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| {
            let program = OsString::from(command.as_std().get_program());
            panic!("{} does not start: {error}", program.display())
        });
        let stdout = Output::keep(child.stdout.take().expect("piped above"));
        let stderr = Output::keep(child.stderr.take().expect("piped above"));
        Self { child, outputs: [stdout, stderr], status: None, processor: None }
    }

    /// The first code that it prints, wherever. `None` if it ends, or `patience` does, before that.
    async fn code(&self, patience: Duration) -> Option<String> {
        let [stdout, stderr] = self.outputs.each_ref().map(Output::code);
        let found = async {
            tokio::pin!(stdout, stderr);
            tokio::select! {
                Some(code) = &mut stdout => Some(code),
                Some(code) = &mut stderr => Some(code),
                else => None,
            }
        };
        timeout(patience, found).await.ok().flatten()
    }

    fn is_over(&self) -> bool {
        self.processor.is_some()
    }

    /// Waits for its end. Cancel safe.
    async fn over(&mut self) {
        if let Ok(status) = self.child.wait().await {
            self.status = status.code();
        }
    }

    fn take(&mut self, meter: &mut Meter) {
        self.processor = Some(meter.lap());
    }

    /// Its end, once it has come.
    async fn ended(self, meter: &mut Meter) -> Ended {
        let processor = self.processor.unwrap_or_else(|| meter.lap());
        let [stdout, stderr] = self.outputs;
        Ended { status: self.status, stdout: stdout.all().await, stderr: stderr.all().await, processor }
    }
}

/// What a program prints, up to [`KEPT`] bytes.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    grown: watch::Receiver<()>,
    reader: JoinHandle<()>,
}

impl Output {
    fn keep(mut from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (grow, grown) = watch::channel(());
        let place = Arc::clone(&kept);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                let mut kept = place.lock().expect("no holder panics");
                let room = KEPT.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..length.min(room)]);
                drop(kept);
                grow.send_replace(());
            }
        });
        Self { kept, grown, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock().expect("no holder panics")).into_owned()
    }

    async fn code(&self) -> Option<String> {
        let mut grown = self.grown.clone();
        loop {
            if let Some(code) = code_in(&self.text()) {
                return Some(code);
            }
            if grown.changed().await.is_err() {
                return code_in(&self.text());
            }
        }
    }

    async fn all(mut self) -> String {
        // A child of the program may hold the pipe.
        if timeout(DRAIN, &mut self.reader).await.is_err() {
            self.reader.abort();
        }
        self.text()
    }
}

/// The first code in the whole lines of a text: a number and at least two words, joined by dashes.
fn code_in(text: &str) -> Option<String> {
    let (whole, _) = text.rsplit_once('\n')?;
    let is_code = |word: &&str| {
        let mut parts = word.split('-');
        let number = parts
            .next()
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
        let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
        number && parts.clone().count() >= 2 && parts.all(is_word)
    };
    whole.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).find(is_code).map(str::to_owned)
}

/// Processor time of the children that ended and were waited for.
struct Meter {
    last: Duration,
}

impl Meter {
    fn new() -> Self {
        Self { last: Self::read() }
    }

    /// Since the last time.
    fn lap(&mut self) -> Duration {
        let now = Self::read();
        now - std::mem::replace(&mut self.last, now)
    }

    /// Nothing where the system does not tell.
    fn read() -> Duration {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field, in brackets, may have anything in it; children's user and system time are 16 and 17.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u32>().ok());
        TICK * ticks.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_in_what_programs_print() {
        for text in [
            "Wormhole code is: 4-purple-sausages\n",
            "\nThis wormhole's code is: 4-purple-sausages (it has been copied)\nThis is",
            "On the other side:\n\n    dilated receive 4-purple-sausages\n",
            "link wormhole-transfer:4-purple-sausages?version=0\n",
        ] {
            assert_eq!(code_in(text).as_deref(), Some("4-purple-sausages"), "{text}");
        }
        for text in ["Wormhole code is: 4-purple-sau", "at 2026-11-21\n", "7-bit\n", "a-b-c\n", ""] {
            assert_eq!(code_in(text), None, "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn statuses_outputs_and_failures_are_told() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).kill_on_drop(true);
            command
        };
        let patience = Duration::from_secs(60);
        let sender = "echo 4-purple-sausages >&2; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let outcome = transfer(shell(sender), |code| shell(&format!("echo {code}; exit 3")), patience).await;
        assert!(outcome.sender.is_success() && !outcome.is_success(), "{outcome}");
        assert_eq!((outcome.receiver.status, outcome.receiver.stdout.trim()), (Some(3), "4-purple-sausages"));
        assert!(outcome.sender.processor > outcome.receiver.processor, "{outcome:?}");

        let outcome = transfer(shell("echo nothing"), |_| panic!("there is no code"), patience).await;
        assert!(outcome.sender.is_success() && outcome.sender.stdout.contains("nothing"), "{outcome}");
        assert_eq!((outcome.is_success(), outcome.receiver.status), (false, None), "{outcome}");

        let hanging = "echo 4-purple-sausages; exec sleep 100";
        // Long enough for two shells to start.
        let outcome = transfer(shell(hanging), |_| shell("true"), Duration::from_secs(5)).await;
        assert_eq!((outcome.sender.status, outcome.receiver.status), (None, Some(0)), "{outcome}");
    }
}
