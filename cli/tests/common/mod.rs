//! Runs the real command, on loopback, and never for longer than [`PATIENCE`].

#![allow(dead_code, reason = "every test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

use std::{
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpSocket,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    time::timeout,
};

/// A guard against hanging, not a measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Fails instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// The command with an environment of its own.
pub(crate) fn dilated() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dilated"));
    command
        .env_clear()
        // The configuration of whoever runs the tests is none of theirs.
        .env("DILATED_CONFIG", "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for kept in ["PATH", "TMPDIR", "TEMP", "SystemRoot", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

/// What a process says on standard error, line by line.
#[derive(Clone)]
pub(crate) struct Lines {
    said: Arc<Mutex<Vec<String>>>,
    /// Its sender is gone when there is no more to come.
    more: watch::Receiver<()>,
}

impl Lines {
    fn collect(from: impl AsyncRead + Unpin + Send + 'static) -> Lines {
        let (ended, more) = watch::channel(());
        let lines = Lines { said: Arc::default(), more };
        let said = lines.said.clone();
        tokio::spawn(async move {
            let mut from = BufReader::new(from).lines();
            while let Ok(Some(line)) = from.next_line().await {
                said.lock().unwrap().push(line);
            }
            drop(ended);
        });
        lines
    }

    pub(crate) fn all(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// Waits for the end of all that it says.
    async fn complete(&mut self) {
        let _sender_gone = soon("the end of standard error", self.more.changed()).await;
    }

    /// Waits for a line with `part` in it.
    pub(crate) async fn wait_for(&self, part: &str) -> String {
        let found = async {
            loop {
                if let Some(line) = self.said.lock().unwrap().iter().find(|line| line.contains(part)) {
                    return line.clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no line with {part:?} in:\n{}", self.all()))
    }
}

/// A running `dilated serve`.
pub(crate) struct Serve {
    pub(crate) child: Child,
    pub(crate) mailbox: String,
    pub(crate) relay: String,
}

impl Serve {
    pub(crate) async fn start() -> Serve {
        Serve::with(&["--mailbox-listen", "127.0.0.1:0", "--relay-listen", "127.0.0.1:0"]).await
    }

    pub(crate) async fn with(arguments: &[&str]) -> Serve {
        let mut child = dilated().arg("serve").args(arguments).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut serve = Serve { child, mailbox: String::new(), relay: "none".to_owned() };
        while let Some(line) = soon("the instructions", lines.next_line()).await.unwrap() {
            match line.split_once(':') {
                Some(("mailbox server", url)) => serve.mailbox = url.trim().to_owned(),
                Some(("relay", hint)) => serve.relay = hint.trim().to_owned(),
                _ if line.starts_with("Ctrl-C") => break,
                _ => {}
            }
        }
        serve
    }

    /// A command that uses these servers.
    pub(crate) fn dilated(&self) -> Command {
        let mut command = dilated();
        command
            .env("DILATED_MAILBOX", &self.mailbox)
            .env("DILATED_RELAY", &self.relay)
            .env("DILATED_LOCAL", "1");
        command
    }

    /// Starts a `dilated pipe`.
    pub(crate) fn pipe(&self, arguments: &[&str]) -> Pipe {
        self.run("pipe", arguments)
    }

    /// Starts a command that has another side.
    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> Pipe {
        let mut process = self.dilated();
        process.arg(command).args(arguments);
        Pipe::spawn(process)
    }

    /// Two pipes, of which the second joined the first.
    pub(crate) async fn pair(&self) -> (Pipe, Pipe) {
        let first = self.pipe(&[]);
        let code = first.code().await;
        (first, self.pipe(&[&code]))
    }

    pub(crate) async fn stop(mut self) -> ExitStatus {
        signal(&self.child, "INT").await;
        soon("the end of the servers", self.child.wait()).await.unwrap()
    }
}

/// A running command that has another side, such as `dilated pipe`.
pub(crate) struct Pipe {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) lines: Lines,
}

impl Pipe {
    pub(crate) fn spawn(mut command: Command) -> Pipe {
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let lines = Lines::collect(child.stderr.take().unwrap());
        Pipe { child, stdin, stdout, lines }
    }

    /// The code that it prints, in the command for the other side.
    pub(crate) async fn code(&self) -> String {
        let command = self.lines.wait_for("    dilated ").await;
        command.rsplit(' ').next().unwrap().to_owned()
    }

    /// Writes `data` and ends the input, in the background.
    pub(crate) fn feed(&mut self, data: impl Into<Vec<u8>>) {
        let mut stdin = self.stdin.take().expect("fed once");
        let data = data.into();
        tokio::spawn(async move {
            // A side that gave up stops reading.
            let _ = stdin.write_all(&data).await;
        });
    }

    /// Everything on its standard output, up to the end of it.
    pub(crate) async fn read(&mut self) -> Vec<u8> {
        let mut data = Vec::new();
        let mut stdout = self.stdout.take().expect("read once");
        soon("the end of the output", stdout.read_to_end(&mut data)).await.unwrap();
        data
    }

    pub(crate) async fn status(&mut self) -> i32 {
        let status = soon("the end of the process", self.child.wait()).await.unwrap();
        self.lines.complete().await;
        status.code().unwrap_or(-1)
    }

    /// Waits for its end, which must be good.
    pub(crate) async fn succeed(&mut self) {
        let status = self.status().await;
        assert_eq!(status, 0, "{}", self.lines.all());
    }

    /// Waits for its end, which must have this status and this sentence.
    pub(crate) async fn fail(&mut self, status: i32, sentence: &str) {
        let actual = self.status().await;
        let said = self.lines.all();
        assert_eq!(actual, status, "{said}");
        assert!(said.contains(sentence), "{sentence:?} is not in:\n{said}");
        assert!(!said.contains("panicked") && !said.contains("Error {"), "{said}");
    }
}

/// An address at which nobody listens, or can listen as long as the socket lives.
pub(crate) fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// An address for a server, and then for the next: between the two nobody else gets the port, as long as the socket
/// lives.
pub(crate) fn kept_address() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

/// Sends a signal to this one process.
pub(crate) async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("it runs").to_string();
    let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await.unwrap();
    assert!(status.success());
}

/// Bytes without a pattern that a mistake could repeat.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut data: Vec<u8> =
        std::iter::repeat_with(|| step().to_le_bytes()).take(length / 8 + 1).flatten().collect();
    data.truncate(length);
    data
}

/// A digest that fits into a message.
pub(crate) fn hash(data: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(data))
}
