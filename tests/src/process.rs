//! A child process that speaks JSON lines: one command a line in, one event a line out.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

/// How long [`JsonProcess::expect`] waits: far longer than anything takes, so that only a hang ends it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of standard error kept for the message of a failed expectation.
const KEPT_LINES: usize = 60;

/// A running child. It ends when its standard input does, and is killed when this is dropped.
pub struct JsonProcess {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    events: mpsc::UnboundedReceiver<Value>,
    passed: VecDeque<Value>,
    errors: Arc<Mutex<VecDeque<String>>>,
}

impl JsonProcess {
    /// Starts `command`; `name` tells it apart from the others in messages.
    ///
    /// # Panics
    ///
    /// If the command cannot be started.
    pub fn start(name: impl Into<String>, mut command: Command) -> Self {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));

        let stdin = child.stdin.take();
        let mut out = BufReader::new(child.stdout.take().expect("piped above")).lines();
        let (sender, events) = mpsc::unbounded_channel();
        let source = name.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = out.next_line().await {
                // Anything else on standard output is a fault of the child: make it visible as an event.
                let event = serde_json::from_str(&line).unwrap_or_else(
                    |_| serde_json::json!({ "event": "error", "message": format!("{source} printed: {line}") }),
                );
                if sender.send(event).is_err() {
                    break;
                }
            }
        });

        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&errors);
        let mut err = BufReader::new(child.stderr.take().expect("piped above")).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = err.next_line().await {
                let mut kept = kept.lock().expect("no holder panics");
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });

        Self { name, child, stdin, events, passed: VecDeque::new(), errors }
    }

    /// The process id of the child.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// Writes one command.
    ///
    /// # Panics
    ///
    /// If the child is gone.
    pub async fn send(&mut self, command: Value) {
        let line = format!("{command}\n");
        let written = match &mut self.stdin {
            Some(stdin) => stdin.write_all(line.as_bytes()).await,
            None => panic!("{} was told to finish and can take no {command}", self.name),
        };
        if let Err(e) = written {
            panic!("{} took no {command}: {e}\n{}", self.name, self.story());
        }
    }

    /// The next event called `event`; see [`JsonProcess::expect_with`].
    pub async fn expect(&mut self, event: &str) -> Value {
        self.expect_with(event, serde_json::json!({})).await
    }

    /// The first event called `event` that has all of `fields`, whether it arrived before or is still to come.
    /// It is taken out; other events stay for later expectations.
    ///
    /// # Panics
    ///
    /// If it does not come within [`PATIENCE`], if the child ends, or if the child reports an `error` that was
    /// not expected. The message has the events seen and the end of the child's standard error.
    pub async fn expect_with(&mut self, event: &str, fields: Value) -> Value {
        self.expect_within(event, fields, PATIENCE).await
    }

    /// Like [`JsonProcess::expect_with`], with another patience.
    pub async fn expect_within(&mut self, event: &str, fields: Value, patience: Duration) -> Value {
        if let Some(at) = self.passed.iter().position(|seen| matches(seen, event, &fields)) {
            return self.passed.remove(at).expect("found above");
        }
        let wanted = format!("{event} {fields}");
        let end = tokio::time::sleep(patience);
        tokio::pin!(end);
        loop {
            let seen = tokio::select! {
                seen = self.events.recv() => seen,
                () = &mut end => panic!("{} sent no {wanted} in {patience:?}\n{}", self.name, self.story()),
            };
            match seen {
                Some(seen) if matches(&seen, event, &fields) => return seen,
                Some(seen) if seen["event"] == "error" => {
                    panic!("{} failed while it should send {wanted}: {seen}\n{}", self.name, self.story())
                }
                Some(seen) => self.passed.push_back(seen),
                None => panic!("{} ended without {wanted}\n{}", self.name, self.story()),
            }
        }
    }

    /// The events that arrived so far and no expectation took.
    pub fn passed(&mut self) -> Vec<Value> {
        while let Ok(event) = self.events.try_recv() {
            self.passed.push_back(event);
        }
        self.passed.iter().cloned().collect()
    }

    /// Fails the test if the child logged an error: Python reports many faults of the peer only in its log.
    ///
    /// # Panics
    ///
    /// If it did, with what it logged.
    pub fn assert_quiet(&mut self) {
        let loud: Vec<Value> =
            self.passed().into_iter().filter(|e| e["event"] == "log" || e["event"] == "error").collect();
        assert!(loud.is_empty(), "{} logged {loud:?}\n{}", self.name, self.story());
    }

    /// Closes the child's standard input and waits until it has ended; after [`PATIENCE`] it is killed.
    pub async fn finish(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            panic!("{} does not end\n{}", self.name, self.story());
        }
    }

    /// Ends the child at once, as a crash would, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap_or_else(|e| panic!("{} cannot be killed: {e}", self.name));
    }

    fn story(&self) -> String {
        let errors = self.errors.lock().expect("no holder panics");
        let errors = Vec::from_iter(errors.iter().map(String::as_str)).join("\n");
        let events = self.passed.iter().rev().take(20).rev();
        let events = Vec::from_iter(events.map(Value::to_string)).join("\n");
        format!("--- last events ---\n{events}\n--- standard error ---\n{errors}")
    }
}

/// Whether this is an event of that name with all of `fields`.
pub(crate) fn matches(seen: &Value, event: &str, fields: &Value) -> bool {
    let wanted = fields.as_object().expect("fields are an object");
    seen["event"] == event && wanted.iter().all(|(key, value)| seen.get(key) == Some(value))
}
