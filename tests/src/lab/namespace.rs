//! One network namespace with a name that tells whose it is.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

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
        must("ip", &["netns", "exec", &self.name, "nft", command]);
    }

    /// A command that runs inside. `ip` replaces itself with the program, so the child is the program.
    pub(super) fn command(&self, program: &Path, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).args(arguments);
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
