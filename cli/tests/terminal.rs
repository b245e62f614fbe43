//! What the command does on a terminal: it asks, draws, and leaves the terminal as it was.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{PATIENCE, Pipe, Serve, nobody, noise, signal, soon};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use tokio::process::{Child, Command};

/// What the line editor shows.
const PROMPT: &str = "Tab completes): ";

const TAB: &str = "\t";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const ENTER: &str = "\r";

/// How the line editor says that a key had no effect.
const BELL: &str = "\x07";

/// Written by the test itself, behind everything that the command has written.
const LAST: &str = "<the last byte>";

/// A terminal with a command on it.
struct Screen {
    child: Child,
    keyboard: File,
    /// Kept open, so that what was written last can be read after the command has ended.
    terminal: File,
    shown: Arc<Mutex<String>>,
    /// How much of it was waited for.
    seen: usize,
}

impl Screen {
    /// Runs a command on a new terminal, which is the one that it belongs to. Standard output is the terminal, too,
    /// unless it is `Some`.
    fn run(command: &Command, columns: u16, stdout: Option<Stdio>) -> Screen {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let terminal = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 60, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let here = || Stdio::from(OwnedFd::from(terminal.try_clone().unwrap()));
        let command = command.as_std();
        // A process cannot take a terminal for itself in safe Rust.
        let mut started = Command::new("setsid");
        started.arg("--ctty").arg(command.get_program()).args(command.get_args());
        started.env_clear().env("TERM", "xterm");
        started.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = command.get_current_dir() {
            started.current_dir(directory);
        }
        started.stdin(here()).stdout(stdout.unwrap_or_else(here)).stderr(here()).kill_on_drop(true);
        let child = started.spawn().expect("setsid of util-linux");
        let shown = Arc::new(Mutex::new(String::new()));
        let mut screen = File::from(controller.try_clone().unwrap());
        let told = shown.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                told.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Screen { child, keyboard: File::from(controller), terminal, shown, seen: 0 }
    }

    fn all(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Whether `text` was shown since it was waited for last. If so, the next wait begins behind it.
    fn shows(&mut self, text: &str) -> bool {
        let all = self.all();
        let found = all[self.seen..].find(text);
        if let Some(place) = found {
            self.seen += place + text.len();
        }
        found.is_some()
    }

    async fn wait_for(&mut self, text: &str) {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if self.shows(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{text:?} is not shown, but {:?}", self.all());
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Presses Tab until it has an effect: what is completed comes from the server. It is never pressed again before
    /// it is known to have had none, since several at once ask for something else.
    async fn tab(&mut self, completed: &str) {
        let shown = self.shown.clone();
        let completion = async {
            loop {
                self.press(TAB);
                let from = self.seen;
                loop {
                    if self.shows(completed) {
                        return;
                    }
                    if self.all()[from..].contains(BELL) {
                        self.wait_for(BELL).await;
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, completion).await.is_err() {
            panic!("{completed:?} is not completed: {:?}", shown.lock().unwrap());
        }
    }

    /// Waits for its end, and for all that it showed. The terminal must be as it was: it shows what is typed, line by
    /// line.
    async fn status(&mut self) -> Option<i32> {
        let status = soon("the end of the process", self.child.wait()).await.unwrap();
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        let cooked = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        assert!(modes.contains(cooked), "the terminal is left with {modes:?}");
        self.terminal.write_all(LAST.as_bytes()).unwrap();
        self.wait_for(LAST).await;
        status.code()
    }
}

fn on_terminal(serve: &Serve, arguments: &[&str]) -> Screen {
    let mut command = serve.dilated();
    command.args(arguments);
    Screen::run(&command, 100, None)
}

#[tokio::test]
async fn a_code_is_typed_with_tab() {
    let serve = Serve::start().await;
    let mut sender = serve.run("send", &["--code", "7-crossover-clockwork", "--text", "well typed"]);
    sender.lines.wait_for("waiting for the other side").await;
    let mut screen = on_terminal(&serve, &["receive", "--only-text"]);
    screen.wait_for(PROMPT).await;
    screen.tab("7-").await;
    screen.press("cros");
    screen.tab("crossover-").await;
    screen.press("clockw");
    screen.tab("clockwork").await;
    screen.press(ENTER);
    screen.wait_for("well typed").await;
    assert_eq!(screen.status().await, Some(0), "{}", screen.all());
    sender.succeed().await;
}

#[tokio::test]
async fn a_mistyped_code_may_be_corrected() {
    let serve = Serve::start().await;
    let mut sender = serve.run("send", &["--code", "7-crossover-clockwork", "--text", "corrected"]);
    sender.lines.wait_for("waiting for the other side").await;
    let mut screen = on_terminal(&serve, &["receive"]);
    screen.wait_for(PROMPT).await;
    screen.press("7");
    screen.press(ENTER);
    screen.wait_for("incomplete wormhole code").await;
    screen.wait_for(PROMPT).await;
    screen.press("-crossover-clockwork");
    screen.press(ENTER);
    screen.wait_for("corrected").await;
    assert_eq!(screen.status().await, Some(0), "{}", screen.all());
    sender.succeed().await;
}

#[tokio::test]
async fn whoever_gives_up_leaves_the_terminal_as_it_was() {
    let serve = Serve::start().await;
    for (keys, status) in [(CTRL_C, 130), (CTRL_D, 2)] {
        let mut screen = on_terminal(&serve, &["receive"]);
        screen.wait_for(PROMPT).await;
        screen.press(keys);
        assert_eq!(screen.status().await, Some(status), "{}", screen.all());
    }
    let mut screen = on_terminal(&serve, &["receive"]);
    screen.wait_for(PROMPT).await;
    signal(&screen.child, "TERM").await;
    assert_eq!(screen.status().await, Some(143), "{}", screen.all());
}

#[tokio::test]
async fn a_server_that_is_gone_ends_the_question() {
    let (_nobody, dead) = nobody();
    let mut command = common::dilated();
    command.args(["--mailbox", &format!("ws://{dead}/v1"), "receive"]);
    let mut screen = Screen::run(&command, 100, None);
    screen.wait_for("could not connect to the mailbox server").await;
    assert_eq!(screen.status().await, Some(5), "{}", screen.all());
}

#[tokio::test]
async fn a_simple_terminal_is_asked_simply() {
    let serve = Serve::start().await;
    let mut sender = serve.run("send", &["--code", "7-crossover-clockwork", "--text", "simply"]);
    sender.lines.wait_for("waiting for the other side").await;
    let mut command = serve.dilated();
    command.arg("receive").env("TERM", "dumb");
    let mut screen = Screen::run(&command, 100, None);
    screen.wait_for(PROMPT).await;
    screen.press("7-crossover-clockwork\n");
    screen.wait_for("simply").await;
    assert_eq!(screen.status().await, Some(0), "{}", screen.all());
    sender.succeed().await;
}

#[tokio::test]
async fn the_offer_is_asked_about_and_may_be_declined() {
    let serve = Serve::start().await;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("x.bin");
    std::fs::write(&file, noise(3_000, 1)).unwrap();
    for (answer, status, others, there) in [("n\n", 7, 7, false), ("y\n", 0, 0, true)] {
        let mut sender = serve.run("send", &[file.to_str().unwrap()]);
        let mut command = serve.dilated();
        command.args(["receive", &sender.code().await]).current_dir(to.path());
        let mut screen = Screen::run(&command, 100, None);
        screen.wait_for("x.bin").await;
        screen.wait_for("/n] ").await;
        screen.press(answer);
        assert_eq!(screen.status().await, Some(status), "{}", screen.all());
        assert_eq!(sender.status().await, others, "{}", sender.lines.all());
        assert_eq!(to.path().join("x.bin").exists(), there);
    }
}

#[tokio::test]
async fn a_question_that_is_withdrawn_ends_its_line() {
    let serve = Serve::start().await;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("x.bin");
    std::fs::write(&file, b"x").unwrap();
    let mut sender = serve.run("send", &[file.to_str().unwrap()]);
    let mut command = serve.dilated();
    command.args(["receive", &sender.code().await]).current_dir(to.path());
    let mut screen = Screen::run(&command, 100, None);
    screen.wait_for("/n] ").await;
    signal(&sender.child, "INT").await;
    sender.fail(130, "interrupted").await;
    assert_eq!(screen.status().await, Some(4), "{}", screen.all());
    assert!(screen.all().contains("[Y/n] \r\n"), "{:?}", screen.all());
}

#[tokio::test]
async fn the_verifier_is_asked_about() {
    let serve = Serve::start().await;
    let mut sender = serve.run("send", &["--text", "the same"]);
    let mut screen = on_terminal(&serve, &["receive", "--verify", "--yes", &sender.code().await]);
    screen.wait_for("the verifier is ").await;
    screen.wait_for("show the same verifier? [yes/no] ").await;
    screen.press("perhaps\n");
    screen.wait_for("show the same verifier? [yes/no] ").await;
    screen.press("yes\n");
    screen.wait_for("the same").await;
    assert_eq!(screen.status().await, Some(0), "{}", screen.all());
    sender.succeed().await;
}

#[tokio::test]
async fn a_qr_code_is_drawn_where_it_fits() {
    let serve = Serve::start().await;
    for (columns, options, drawn, said) in [
        (100, &[][..], true, "or open wormhole-transfer:"),
        (20, &[], false, "too narrow for a QR code"),
        (100, &["--no-qr"], false, "waiting for the other side"),
        (100, &["--json"], false, "waiting for the other side"),
        (100, &["--appid", "example.org/own"], false, "waiting for the other side"),
    ] {
        let mut command = serve.dilated();
        command.args(["send", "--text", "x"]).args(options);
        let mut screen = Screen::run(&command, columns, Some(Stdio::null()));
        screen.wait_for(" receive ").await;
        screen.wait_for(said).await;
        let waits = "waiting for the other side";
        if said != waits {
            screen.wait_for(waits).await;
        }
        let shown = screen.all();
        assert_eq!(shown.contains('▀'), drawn, "{columns} {options:?}: {shown}");
        signal(&screen.child, "INT").await;
        assert_eq!(screen.status().await, Some(130));
    }
}

#[tokio::test]
async fn bars_and_colours_are_for_terminals_whose_user_wants_them() {
    let serve = Serve::start().await;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("x.bin");
    std::fs::write(&file, noise(20_000_000, 1)).unwrap();
    for (name, variable, bar, colour) in [
        ("a", None, true, true),
        ("b", Some("NO_COLOR"), true, false),
        ("c", Some("DILATED_NO_PROGRESS"), false, false),
    ] {
        let mut sender = serve.run("send", &[file.to_str().unwrap()]);
        let mut command = serve.dilated();
        command.args(["receive", "--yes", "--output", name, &sender.code().await]).current_dir(to.path());
        if let Some(variable) = variable {
            command.env(variable, "1");
        }
        let mut screen = Screen::run(&command, 100, None);
        assert_eq!(screen.status().await, Some(0), "{}", screen.all());
        sender.succeed().await;
        let shown = screen.all();
        assert_eq!(shown.contains("/20.0 MB  "), bar, "{variable:?}: {shown:?}");
        assert_eq!(
            shown.contains("\x1b[36m") || shown.contains("\x1b[36"),
            colour,
            "{variable:?}: {shown:?}"
        );
        assert!(!sender.lines.all().contains('\x1b'), "{:?}", sender.lines.all());
    }
}

#[tokio::test]
async fn a_question_without_a_terminal_names_the_option() {
    let serve = Serve::start().await;
    let from = tempfile::tempdir().unwrap();
    let file = from.path().join("x.bin");
    std::fs::write(&file, b"x").unwrap();
    let mut sender = serve.run("send", &[file.to_str().unwrap()]);
    let mut command = Command::new("setsid");
    let receive = serve.dilated();
    command.args([receive.as_std().get_program().to_str().unwrap(), "receive", &sender.code().await]);
    command.env_clear().envs(receive.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(from.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.args(["--output", "y"]);
    let mut receiver = Pipe::spawn(command);
    receiver.fail(2, "--yes").await;
    assert_ne!(sender.status().await, 0, "{}", sender.lines.all());
}
