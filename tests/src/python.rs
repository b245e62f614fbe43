//! The released Python packages: peers, servers and command-line tools.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::process::JsonProcess;

/// A Python interpreter that has the packages of `tests/python/requirements.txt`.
#[derive(Clone, Debug)]
pub struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// The interpreter that `DILATED_PYTHON` names, provided `DILATED_INTEROP_NETNS=1` says that we run in a
    /// network namespace of our own. The Python packages advertise and listen on every address they find, so
    /// they are not run where others could reach them. Otherwise prints why the test is skipped.
    ///
    /// # Panics
    ///
    /// If `DILATED_PYTHON` names no file: a set-up that is meant to test must not skip.
    pub fn available() -> Option<Self> {
        let private = std::env::var_os("DILATED_INTEROP_NETNS").is_some_and(|value| value == "1");
        let python = Self::named().filter(|_| private);
        if python.is_none() {
            skipped(
                "needs the Python packages and a private network namespace (.ci/run interop sets them up)",
            );
        }
        python
    }

    /// The interpreter that `DILATED_PYTHON` names, if it does, for those who see to the private namespace themselves.
    ///
    /// # Panics
    ///
    /// If `DILATED_PYTHON` names no file.
    pub fn named() -> Option<Self> {
        let interpreter = PathBuf::from(std::env::var_os("DILATED_PYTHON")?);
        assert!(interpreter.is_file(), "DILATED_PYTHON names {}, which is no file", interpreter.display());
        Some(Self { interpreter })
    }

    /// A script of `tests/python`, run so that it leaves no byte code in the source tree.
    pub fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg("-B").arg(scripts().join(name));
        command
    }

    /// A command-line tool of the packages, such as `wormhole` or `fowld`.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(self.interpreter.with_file_name(name));
        command.kill_on_drop(true);
        command
    }

    /// Starts a mailbox server, in memory, on a free port.
    pub async fn mailbox(&self) -> PyServer {
        self.server("mailbox", 0, None).await
    }

    /// Starts a mailbox server on `port` (0 for a free one) that keeps its state in `database`.
    pub async fn mailbox_at(&self, port: u16, database: &Path) -> PyServer {
        self.server("mailbox", port, Some(database)).await
    }

    /// Starts a transit relay on a free port.
    pub async fn relay(&self) -> PyServer {
        self.server("relay", 0, None).await
    }

    async fn server(&self, kind: &str, port: u16, database: Option<&Path>) -> PyServer {
        let mut command = self.script("servers.py");
        command.arg(kind).arg("--port").arg(port.to_string());
        if let Some(database) = database {
            command.arg("--database").arg(database);
        }
        let mut process = JsonProcess::start(format!("the Python {kind} server"), command);
        let listening = process.expect("listening").await;
        let port = listening["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        PyServer { process, port }
    }

    /// Starts a peer and waits until it takes commands. `tests/python/README.md` lists commands and events.
    pub async fn peer(&self, options: &PeerOptions<'_>) -> JsonProcess {
        let name = format!("the Python peer ({})", options.role.name());
        let mut process = JsonProcess::start(name, self.peer_command(options));
        process.expect("ready").await;
        process
    }

    /// What [`Python::peer`] runs.
    pub fn peer_command(&self, options: &PeerOptions<'_>) -> Command {
        let mut command = self.script("peer.py");
        command.args(["--mailbox", options.mailbox, "--appid", options.appid, "--role", options.role.name()]);
        command.args(["--relay", options.relay.unwrap_or("none"), "--versions", options.versions]);
        command.args(["--ping-interval", &options.ping_interval.to_string()]);
        if !options.listen {
            command.arg("--no-listen");
        }
        command
    }
}

/// A Python server in a child process. Dropping it kills it.
pub struct PyServer {
    /// The child.
    pub process: JsonProcess,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl PyServer {
    /// The URL of a mailbox server.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/v1", self.port)
    }

    /// The hint of a transit relay.
    pub fn hint(&self) -> String {
        format!("tcp:127.0.0.1:{}", self.port)
    }
}

/// The role that a Python peer is made to take, by the `side` it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRole {
    /// The highest possible side: `ffffffffffffffff`.
    Leader,
    /// The lowest possible side: `0000000000000000`.
    Follower,
    /// A random side, as in the released package.
    Any,
}

impl PeerRole {
    fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Any => "any",
        }
    }
}

/// Between a Python Leader's pings, unless it is told otherwise. After two without an answer the link is given up.
pub const DEFAULT_PING_INTERVAL: Duration = Duration::from_secs(30);

/// How a Python peer is started.
#[derive(Clone, Debug)]
pub struct PeerOptions<'a> {
    /// URL of the mailbox server.
    pub mailbox: &'a str,
    /// Application id.
    pub appid: &'a str,
    /// Role in the dilation.
    pub role: PeerRole,
    /// `tcp:host:port` of a transit relay.
    pub relay: Option<&'a str>,
    /// Whether it listens for direct connections.
    pub listen: bool,
    /// Seconds between a Leader's pings.
    pub ping_interval: f64,
    /// Its `app_versions`, as JSON.
    pub versions: &'a str,
}

impl<'a> PeerOptions<'a> {
    /// A listening peer without a relay, of application `dilated.test/interop`.
    pub fn new(mailbox: &'a str, role: PeerRole) -> Self {
        Self {
            mailbox,
            appid: "dilated.test/interop",
            role,
            relay: None,
            listen: true,
            ping_interval: DEFAULT_PING_INTERVAL.as_secs_f64(),
            versions: "{}",
        }
    }
}

/// Prints that the running test is skipped, and why, where even a passing test's reader sees it.
pub fn skipped(why: &str) {
    use std::io::Write as _;
    // `println!` would be captured by the test harness and never seen.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}
