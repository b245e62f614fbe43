//! Which programs there are, and how each is told the same thing.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;
use std::sync::OnceLock;

use tokio::process::Command;

use crate::python::{Python, skipped};

/// Names the `wormhole-rs` of the crate `magic-wormhole-cli`.
const WORMHOLE_RS: &str = "DILATED_WORMHOLE_RS";

/// Beginnings of the variables in which cargo tells a process about its package.
const ABOUT_US: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// A program that sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `dilated` of this workspace. Two of them dilate.
    Dilated,
    /// The same, told to speak the classic protocol whoever the other side is.
    DilatedClassic,
    /// `wormhole` of the Python package.
    Python,
    /// `wormhole-rs` of the crate `magic-wormhole-cli`.
    WormholeRs,
}

impl Program {
    /// Whether it is ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Dilated | Self::DilatedClassic)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dilated => "dilated",
            Self::DilatedClassic => "dilated --classic",
            Self::Python => "wormhole",
            Self::WormholeRs => "wormhole-rs",
        })
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// A text message.
    Text(&'a str),
    /// A file or a directory of this name in the sender's directory.
    Name(&'a str),
}

/// The only way that the two sides can reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// No relay is known to either side.
    Direct,
    /// Neither side listens.
    Relayed,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        })
    }
}

/// Where and how two sides meet.
#[derive(Debug, Clone)]
pub struct Meeting {
    /// URL of the mailbox server.
    pub mailbox: String,
    /// `tcp:HOST:PORT` of the relay.
    pub relay: String,
    /// How they reach each other.
    pub way: Way,
    /// Home directory of both, so that nobody's settings change the outcome.
    pub home: PathBuf,
}

impl Meeting {
    fn relayed(&self) -> bool {
        self.way == Way::Relayed
    }
}

/// The programs of this machine.
#[derive(Debug, Clone)]
pub struct Programs {
    dilated: Option<PathBuf>,
    python: Option<Python>,
    wormhole_rs: Option<PathBuf>,
}

impl Programs {
    /// Those that the environment names. Nothing is built.
    ///
    /// # Panics
    ///
    /// If `DILATED_PYTHON` or `DILATED_WORMHOLE_RS` names no file.
    pub fn named() -> Self {
        let wormhole_rs = std::env::var_os(WORMHOLE_RS).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = &wormhole_rs {
            assert!(path.is_file(), "{WORMHOLE_RS} names {}, which is no file", path.display());
        }
        Self { dilated: None, python: Python::named(), wormhole_rs }
    }

    /// The named ones and `dilated`, which is built if `wanted` has it, provided that all of `wanted` are there and
    /// `DILATED_INTEROP_NETNS=1` promises a network namespace of our own: the others advertise and listen on every
    /// address they find. Otherwise prints why the test is skipped.
    ///
    /// # Panics
    ///
    /// As [`Programs::named`], and if `dilated` cannot be built.
    pub fn available(wanted: &[Program]) -> Option<Self> {
        if std::env::var_os("DILATED_INTEROP_NETNS").is_none_or(|value| value != "1") {
            skipped("needs a private network namespace (.ci/run interop makes one)");
            return None;
        }
        let mut programs = Self::named();
        for program in wanted {
            if let Some(why) = programs.lacks(*program) {
                skipped(&format!("{why} (.ci/run interop sets it up)"));
                return None;
            }
        }
        if wanted.iter().any(|program| program.is_ours()) {
            programs.dilated = Some(built());
        }
        Some(programs)
    }

    /// The same with `dilated` at `path`.
    pub fn with_dilated(self, path: PathBuf) -> Self {
        Self { dilated: Some(path), ..self }
    }

    /// Why this program cannot be run here, if so.
    pub fn lacks(&self, program: Program) -> Option<&'static str> {
        match program {
            Program::Dilated | Program::DilatedClassic => None,
            Program::Python => {
                self.python.is_none().then_some("wormhole: DILATED_PYTHON names no interpreter")
            }
            Program::WormholeRs => {
                self.wormhole_rs.is_none().then_some("wormhole-rs: DILATED_WORMHOLE_RS does not name it")
            }
        }
    }

    /// What sends `what` from the directory `from`. It prints a code.
    pub fn sender(&self, program: Program, meeting: &Meeting, from: &Path, what: What<'_>) -> Command {
        let mut command = self.start(program, meeting, from);
        command.args(["send", "--no-qr"]);
        self.options(program, meeting, &mut command);
        match what {
            What::Text(text) => command.arg("--text").arg(text),
            // A name may begin with a dash.
            What::Name(name) => command.arg("--").arg(name),
        };
        command
    }

    /// What receives in the directory `to`.
    pub fn receiver(&self, program: Program, meeting: &Meeting, to: &Path, code: &str) -> Command {
        let mut command = self.start(program, meeting, to);
        command.arg("receive").arg(match program {
            Program::Dilated | Program::DilatedClassic => "--yes",
            Program::Python => "--accept-file",
            Program::WormholeRs => "--noconfirm",
        });
        self.options(program, meeting, &mut command);
        command.arg(code);
        command
    }

    /// `dilated bench`, which prints a code or is given that of another.
    pub fn measurer(&self, meeting: &Meeting, seconds: u8, code: Option<&str>) -> Command {
        let mut command = self.start(Program::Dilated, meeting, &meeting.home);
        command.args(["bench", "--seconds", &seconds.to_string()]).args(code);
        command
    }

    /// The program, its servers, its directory, and an environment that has nothing of ours.
    fn start(&self, program: Program, meeting: &Meeting, directory: &Path) -> Command {
        let mut command = match program {
            Program::Dilated | Program::DilatedClassic => {
                let mut command = Command::new(self.dilated.as_ref().expect("it is among the wanted"));
                let relay = if meeting.relayed() { &meeting.relay } else { "none" };
                command.args(["--mailbox", &meeting.mailbox, "--relay", relay]);
                command
            }
            Program::Python => {
                let mut command = self.python.as_ref().expect("it is among the wanted").tool("wormhole");
                // Without a helper it takes the public one; nobody listens at this one.
                let relay = if meeting.relayed() { &meeting.relay } else { "tcp:127.0.0.1:9" };
                command.args(["--relay-url", &meeting.mailbox, "--transit-helper", relay]);
                command
            }
            Program::WormholeRs => Command::new(self.wormhole_rs.as_ref().expect("it is among the wanted")),
        };
        command.env_clear().env("HOME", &meeting.home).env("LANG", "C.UTF-8").current_dir(directory);
        for kept in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.kill_on_drop(true);
        command
    }

    fn options(&self, program: Program, meeting: &Meeting, command: &mut Command) {
        match program {
            Program::Dilated | Program::DilatedClassic => {
                if program == Program::DilatedClassic {
                    command.arg("--classic");
                }
                if meeting.relayed() {
                    command.arg("--no-listen");
                }
            }
            Program::Python => {
                command.arg("--hide-progress");
                if meeting.relayed() {
                    command.arg("--no-listen");
                }
            }
            Program::WormholeRs => {
                let way = if meeting.relayed() { "--force-relay" } else { "--force-direct" };
                let relay = meeting.relay.replacen("tcp:", "tcp://", 1);
                command.args(["--rendezvous-server", &meeting.mailbox, "--relay-server", &relay, way]);
            }
        }
    }
}

/// Builds `dilated` as this process was built, beside it, and gives its path.
///
/// # Panics
///
/// If it cannot be built, or this process does not run from a target directory of cargo.
pub fn built() -> PathBuf {
    // A failure is kept, too, so that it is told once.
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).clone().expect("dilated can be built")
}

fn build() -> Option<PathBuf> {
    let this = std::env::current_exe().expect("this process knows what it runs");
    // target/PROFILE/deps/NAME
    let place = this.ancestors().nth(2).expect("a directory of cargo");
    let (target, profile) = (place.parent(), place.file_name().and_then(OsStr::to_str));
    let (target, profile) = target.zip(profile).expect("a directory of cargo");
    // One of its own integration tests is built with it: that way cargo chooses the same features of the dependencies as
    // for all tests, and compiles none of them again.
    let mut command = Blocking::new(env!("CARGO"));
    command
        .args(["test", "--quiet", "--workspace", "--test", "serve", "--no-run", "--target-dir"])
        .arg(target);
    if profile != "debug" {
        command.args(["--profile", profile]);
    }
    // What cargo tells this process about its package is not for the build scripts of others: some of them look at it,
    // and would be run again, now and when cargo is started by hand the next time.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| ABOUT_US.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts");
    status.success().then(|| place.join(format!("dilated{}", std::env::consts::EXE_SUFFIX)))
}

/// Gives the network namespace of this process, which has nothing but its loopback, an address that peers advertise:
/// `wormhole-rs` advertises none of 127.0.0.0/8.
///
/// # Panics
///
/// If it cannot be given.
pub fn give_an_address() {
    const ADDRESS: &str = "10.83.0.1/32";
    static GIVEN: OnceLock<()> = OnceLock::new();
    GIVEN.get_or_init(|| {
        // `replace`, since an earlier process in the same namespace may have given it.
        let out = Blocking::new("ip").args(["address", "replace", ADDRESS, "dev", "lo"]).output();
        let out = out.expect("ip starts");
        assert!(out.status.success(), "no address: {}", String::from_utf8_lossy(&out.stderr));
    });
}
