//! Where it happens: a network namespace, servers, and a file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use dilated::server::{MailboxServer, Relay, RelayConfig, ServerConfig};
use dilated_tests::{
    data::Data,
    transfer::{Meeting, Programs, Way, built, give_an_address},
};
use tempfile::TempDir;

use crate::INSIDE;

/// Of the stream that the file is.
pub(crate) const SEED: u64 = 11;

/// The file that is sent, and the one that tells how long everything else takes.
pub(crate) const LARGE: &str = "large";
pub(crate) const SMALL: &str = "small";
pub(crate) const SMALL_SIZE: u64 = 1;

/// What has to be free for each byte of the file: it, what arrives, and what somebody spools.
const SPACE: u64 = 3;

/// Builds `dilated`, and starts this program again where nothing of it can be seen from outside.
pub(crate) fn enter() -> ExitCode {
    let works = |options: &[&str]| {
        Command::new("unshare").args(options).arg("true").output().is_ok_and(|out| out.status.success())
    };
    let root: &[&str] = &["--net"];
    let user: &[&str] = &["--map-root-user", "--net"];
    let Some(options) = [root, user].into_iter().find(|options| works(options)) else {
        println!("skipped: no network namespace can be made here (root, or user namespaces, are needed)");
        return ExitCode::SUCCESS;
    };
    // BBR, which is the default here and there, measures the path, and takes twice the processor time over loopback.
    const INTO: &str =
        "ip link set lo up && echo reno >/proc/sys/net/ipv4/tcp_congestion_control && exec \"$@\"";
    let dilated = built();
    let this = std::env::current_exe().expect("this process knows what it runs");
    let status = Command::new("unshare")
        .args(options)
        .args(["sh", "-c", INTO, "sh"])
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, dilated)
        .status();
    if status.expect("unshare started before").success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Servers, and directories to send from and to.
pub(crate) struct Stage {
    pub(crate) programs: Programs,
    pub(crate) meeting: Meeting,
    pub(crate) from: PathBuf,
    /// For a directory for each transfer.
    pub(crate) place: TempDir,
    /// Whether files are in memory.
    pub(crate) in_memory: bool,
}

impl Stage {
    pub(crate) async fn set(programs: Programs, size: u64) -> Stage {
        give_an_address();
        let (place, in_memory) = place(size);
        let (from, home) = (place.path().join("from"), place.path().join("home"));
        for directory in [&from, &home] {
            std::fs::create_dir(directory).expect("a new directory");
        }
        write(from.join(LARGE), size);
        write(from.join(SMALL), SMALL_SIZE);
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let mailbox = MailboxServer::bind(loopback, ServerConfig::default()).await.expect("bound");
        let relay = Relay::bind(loopback, RelayConfig::default()).await.expect("bound");
        let (url, hint) = (mailbox.url(), relay.hint());
        tokio::spawn(mailbox.run());
        tokio::spawn(relay.run());
        let meeting = Meeting { mailbox: url, relay: hint, way: Way::Direct, home };
        Stage { programs, meeting, from, place, in_memory }
    }
}

/// A directory in memory if there is room, since programs are to be measured and not disks.
fn place(size: u64) -> (TempDir, bool) {
    if let Some(directory) = std::env::var_os("DILATED_BENCH_DIR") {
        return (TempDir::new_in(directory).expect("a directory in DILATED_BENCH_DIR"), false);
    }
    const MEMORY: &str = "/dev/shm";
    let out = Command::new("df").args(["--block-size=1", "--output=avail", MEMORY]).output();
    let free = out.ok().and_then(|out| {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.lines().nth(1)?.trim().parse::<u64>().ok()
    });
    match TempDir::new_in(MEMORY) {
        Ok(directory) if free.is_some_and(|free| free > SPACE * size) => (directory, true),
        _ => (TempDir::new().expect("a directory"), false),
    }
}

fn write(path: PathBuf, size: u64) {
    let mut file = BufWriter::new(File::create(path).expect("a new file"));
    for piece in Data::new(SEED).chunks(size, 1 << 20) {
        file.write_all(&piece).expect("room for the file");
    }
    file.flush().expect("room for the file");
}
