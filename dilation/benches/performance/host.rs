//! Where one end of a link runs.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::{affinity::Core, program::Outcome};

/// How the two ends of a link share the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Flavour {
    /// One runtime with a thread for each core, as in a program that has both ends.
    Shared,
    /// A runtime for each end, with a thread for each core: two programs of the usual kind. On two cores the threads of
    /// both get into each other's way, and how much so differs from run to run.
    Multi,
    /// A runtime of one thread for each end, as the baseline has one thread for each end.
    #[default]
    Current,
}

impl Flavour {
    /// What the command line calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flavour::Shared => "shared",
            Flavour::Multi => "multi",
            Flavour::Current => "current",
        }
    }
}

impl FromStr for Flavour {
    type Err = String;

    fn from_str(name: &str) -> Result<Flavour, String> {
        let all = [Flavour::Shared, Flavour::Multi, Flavour::Current];
        all.into_iter()
            .find(|flavour| flavour.name() == name)
            .ok_or_else(|| format!("no runtime is called {name:?}; there are shared, multi, current"))
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Shared => "one runtime with a thread for each core",
            Flavour::Multi => "each end in a runtime with a thread for each core",
            Flavour::Current => "each end in a runtime of one thread",
        })
    }
}

/// A runtime with a thread that drives it. Dropping it ends its tasks.
#[derive(Debug)]
pub(crate) struct Host {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    pub(crate) fn start(name: &str, flavour: Flavour) -> Outcome<Host> {
        let mut builder = match flavour {
            Flavour::Current => Builder::new_current_thread(),
            Flavour::Shared | Flavour::Multi => Builder::new_multi_thread(),
        };
        let runtime = builder.enable_all().thread_name(name).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let core = match (flavour, name) {
            (Flavour::Current, "a") => Some(Core::First),
            (Flavour::Current, "b") => Some(Core::Second),
            _ => None,
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            core.into_iter().for_each(Core::keep_this_thread);
            // Either way the host has to end.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Host { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// The hosts of two ends.
    pub(crate) fn two(flavour: Flavour) -> Outcome<[Arc<Host>; 2]> {
        let a = Arc::new(Host::start("a", flavour)?);
        let b = match flavour {
            Flavour::Shared => Arc::clone(&a),
            Flavour::Multi | Flavour::Current => Arc::new(Host::start("b", flavour)?),
        };
        Ok([a, b])
    }

    /// Runs a task here.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.handle.spawn(task)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended by a panic, which its join tells.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
