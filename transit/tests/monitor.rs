//! The monitor on a machine whose addresses and routes really change: in a network namespace of its own, which takes
//! root on Linux, and is skipped elsewhere. And in a process that is really stopped.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use dilated_transit::net::{Disturbance, Monitor, MonitorConfig};

/// Far longer than anything takes, so that only a hang ends it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the test `watcher` what it is: a program that other tests run.
const WATCHER: &str = "DILATED_MONITOR_WATCHER";

/// Not a test but the program of [`Watcher`]: prints what a monitor tells until its standard input ends.
#[test]
#[ignore = "the program that the other tests run"]
fn watcher() {
    if std::env::var_os(WATCHER).is_none() {
        return;
    }
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut monitor = Monitor::start(MonitorConfig::default());
        // The test harness has begun a line.
        println!("\n> started");
        loop {
            match monitor.next().await {
                Disturbance::Addresses => println!("> addresses"),
                Disturbance::Routes => println!("> routes"),
                Disturbance::Woke { after } => println!("> woke {}", after.as_secs()),
                other => println!("> {other}"),
            }
        }
    });
}

/// A process with a monitor. Dropping it kills it.
struct Watcher {
    child: Child,
    lines: Receiver<String>,
    _stdin: ChildStdin,
}

impl Watcher {
    /// Starts one, with the words of a command before its own, and waits until it watches.
    fn start(before: &[&str]) -> Watcher {
        let own = std::env::current_exe().unwrap();
        let own = own.to_str().expect("the path of a test is text");
        let words = [before, &[own, "--ignored", "--exact", "watcher", "--nocapture"]].concat();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env(WATCHER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Some(line) = line.strip_prefix("> ") else { continue };
                if sender.send(line.to_owned()).is_err() {
                    break;
                }
            }
        });
        let watcher = Watcher { child, lines, _stdin: stdin };
        assert_eq!(watcher.line(), "started");
        watcher
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the monitor tells something")
    }

    /// The next that is told about the network. The machine may also stand still for a while, and be told so.
    fn change(&self) -> String {
        loop {
            let line = self.line();
            if !line.starts_with("woke ") {
                return line;
            }
        }
    }

    /// The next that is told is this.
    fn expect(&self, expected: &str) {
        assert_eq!(self.change(), expected);
    }

    /// All of these are told, in any order and among others.
    fn expect_among(&self, expected: &[&str]) {
        let mut missing = expected.to_vec();
        for _ in 0..100 {
            let line = self.line();
            missing.retain(|one| *one != line);
            if missing.is_empty() {
                return;
            }
        }
        panic!("not told: {missing:?}");
    }

    fn signal(&self, name: &str) {
        run("kill", &[name, &self.child.id().to_string()]);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).output().ok()
}

/// Runs a program that has to succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let out = output(program, arguments).unwrap_or_else(|| panic!("`{program}` cannot be started"));
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A network namespace with an interface `one`, which has the address 10.84.0.1/24. Dropping it removes it.
struct Namespace(String);

impl Namespace {
    /// `None`, and a line that says why, where there can be none.
    fn new() -> Option<Namespace> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // The network lab sweeps names like this if this process cannot.
        let space = Namespace(format!("dilated-{}-{number}-monitor", std::process::id()));
        let made = output("ip", &["netns", "add", &space.0]);
        if !cfg!(target_os = "linux") || !made.as_ref().is_some_and(|made| made.status.success()) {
            let why = made.map_or_else(
                || "`ip` (Debian package iproute2) cannot be started".to_owned(),
                |made| String::from_utf8_lossy(&made.stderr).trim().to_owned(),
            );
            // `println!` would be captured by the test harness and never seen.
            let _ = writeln!(std::io::stderr(), "skipped: no network namespace can be made here: {why}");
            return None;
        }
        space.ip("link set dev lo up");
        space.ip("link add name one type veth peer name other");
        for name in ["one", "other"] {
            // Without IPv6 (or, where the system has none, anyway): detection of duplicate addresses would make the
            // monitor look at them at times of its own.
            let _ = output("ip", &["-n", &space.0, "link", "set", "dev", name, "addrgenmode", "none"]);
            space.ip(&format!("link set dev {name} up"));
        }
        space.ip("addr add 10.84.0.1/24 dev one");
        space.settle();
        Some(space)
    }

    fn ip(&self, arguments: &str) {
        let mut words = vec!["-n", &self.0];
        words.extend(arguments.split(' '));
        run("ip", &words);
    }

    /// Waits until both interfaces are up, which would make a monitor look at the addresses, too.
    fn settle(&self) {
        for _ in 0..1000 {
            if run("ip", &["-n", &self.0, "-oneline", "link"]).matches("state UP").count() == 2 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the interfaces do not come up");
    }

    /// Runs many commands of `ip` in one process.
    fn ip_batch(&self, commands: &str) {
        let mut child =
            Command::new("ip").args(["-n", &self.0, "-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn watcher(&self) -> Watcher {
        Watcher::start(&["ip", "netns", "exec", &self.0])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing here may panic: it runs while a failed test unwinds. Watchers were dropped before.
        let _ = output("ip", &["netns", "del", &self.0]);
    }
}

#[test]
fn addresses_and_routes() {
    let Some(space) = Namespace::new() else { return };
    let watcher = space.watcher();
    space.ip("addr add 10.84.1.1/24 dev one");
    watcher.expect("addresses");
    space.ip("route add 10.85.0.0/16 via 10.84.0.2");
    watcher.expect("routes");
    space.ip("addr del 10.84.1.1/24 dev one");
    watcher.expect("addresses");
    space.ip("route del 10.85.0.0/16 via 10.84.0.2");
    watcher.expect("routes");
}

#[test]
fn what_changes_nothing_is_not_told() {
    let Some(space) = Namespace::new() else { return };
    let watcher = space.watcher();
    // A renewal, an address of the loopback, news of an interface, and its removal.
    space.ip("addr replace 10.84.0.1/24 dev one");
    space.ip("addr add 127.1.2.3/8 dev lo");
    space.ip("link set dev one mtu 1400");
    space.ip("link add name third type veth peer name fourth");
    space.ip("link del dev third");
    // They would be told before these, or with the first of them.
    space.ip("route add 10.85.0.0/16 via 10.84.0.2");
    watcher.expect("routes");
    space.ip("route del 10.85.0.0/16 via 10.84.0.2");
    watcher.expect("routes");
    // Routes of the local table, and of the kernel.
    space.ip("route add local 10.86.0.1 dev lo table local");
    space.ip("route add 10.87.0.0/16 dev one proto kernel");
    space.ip("addr add 10.84.1.1/24 dev one");
    watcher.expect("addresses");
    space.ip("addr del 10.84.1.1/24 dev one");
    watcher.expect("addresses");
}

#[test]
fn an_interface_that_is_set_down_takes_its_routes() {
    let Some(space) = Namespace::new() else { return };
    space.ip("route add 10.85.0.0/16 via 10.84.0.2");
    let watcher = space.watcher();
    // It keeps its address.
    space.ip("link set dev one down");
    watcher.expect("routes");
    space.ip("link set dev one up");
    watcher.expect("routes");
    space.ip("link del dev one");
    watcher.expect_among(&["addresses", "routes"]);
}

#[test]
fn changes_that_the_kernel_had_no_room_to_tell_are_found() {
    let Some(space) = Namespace::new() else { return };
    let watcher = space.watcher();
    watcher.signal("-STOP");
    // More than a socket of the default size holds: the news of the address is lost.
    let routes: String =
        (0..4000).map(|n| format!("route add 10.85.{}.{} via 10.84.0.2\n", n / 250, n % 250)).collect();
    space.ip_batch(&routes);
    space.ip("addr add 10.84.1.1/24 dev one");
    watcher.signal("-CONT");
    watcher.expect_among(&["addresses", "routes"]);
}

#[test]
fn a_process_that_was_stopped_says_so() {
    let watcher = Watcher::start(&[]);
    watcher.signal("-STOP");
    std::thread::sleep(Duration::from_secs(4));
    watcher.signal("-CONT");
    // The machine that runs this may have changes of its own.
    let woke = (0..100).map(|_| watcher.line()).find(|line| line.starts_with("woke")).unwrap();
    let seconds: u64 = woke.trim_start_matches("woke ").parse().unwrap();
    // The stop, less one tick that had to pass anyway.
    assert!(seconds >= 2, "{woke}");
}
