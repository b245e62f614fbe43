//! One network namespace with a name that tells whose it is.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::process::Command;

use super::tools::{must, output};

/// Names are `dilated-PROCESS-NUMBER-HOST`.
const PREFIX: &str = "dilated-";

/// A network namespace. Dropping it kills what runs inside and removes it.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    /// A number that no other lab of this process has.
    pub(super) fn next_number() -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add(number: u32, host: &str) -> Self {
        let space = Self { name: format!("{PREFIX}{}-{number}-{host}", std::process::id()) };
        must("ip", &["netns", "add", &space.name]);
        space
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` for this namespace.
    pub(super) fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split(' '));
        must("ip", &all);
    }

    /// Runs one `nft` command inside.
    pub(super) fn nft(&self, command: &str) {
        self.run("nft", &[command]);
    }

    /// Sets a kernel parameter, a path below `/proc/sys/net`.
    pub(super) fn parameter(&self, path: &str, value: u32) {
        self.run("sh", &["-c", &format!("echo {value} > /proc/sys/net/{path}")]);
    }

    /// Runs a program inside to its end, and gives what it printed.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> String {
        must("ip", &[&["netns", "exec", &self.name, program], arguments].concat())
    }

    /// The same command, run inside. `ip` replaces itself with the program, so the child is the program.
    pub(super) fn command(&self, inner: &Command) -> Command {
        let mut command = Command::new("ip");
        let inner = inner.as_std();
        command.args(["netns", "exec", &self.name]).arg(inner.get_program()).args(inner.get_args());
        command
    }

    /// Removes the namespaces of processes that ended without doing so.
    pub(super) fn sweep() {
        for line in must("ip", &["netns", "list"]).lines() {
            let Some(name) = line.split_whitespace().next() else { continue };
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok()) else { continue };
            if !Path::new("/proc").join(owner.to_string()).exists() {
                drop(Self { name: name.to_owned() });
            }
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing here may panic: it runs while a failed test unwinds.
        if let Some(out) = output("ip", &["netns", "pids", &self.name]) {
            for pid in String::from_utf8_lossy(&out.stdout).split_whitespace() {
                let _ = output("kill", &["-KILL", pid]);
            }
        }
        let _ = output("ip", &["netns", "del", &self.name]);
    }
}
