//! What to measure, and how much of it.

use std::{env, fmt, str::FromStr, time::Duration};

use dilated::Dialect;

use crate::{cases, host::Flavour, program::Outcome};

/// One benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Bulk,
    Streams,
    Echo,
    Messages,
    Idle,
    Churn,
    Cpu,
    Stalled,
    Allocations,
}

impl Case {
    const ALL: [(Case, &str); 9] = [
        (Case::Bulk, "bulk"),
        (Case::Streams, "streams"),
        (Case::Echo, "echo"),
        (Case::Messages, "messages"),
        (Case::Idle, "idle"),
        (Case::Churn, "churn"),
        (Case::Cpu, "cpu"),
        (Case::Stalled, "stalled"),
        (Case::Allocations, "allocations"),
    ];
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Case::ALL.iter().find(|(case, _)| case == self).map_or("", |(_, name)| name);
        f.pad(name)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(name: &str) -> Result<Case, String> {
        Case::ALL.iter().find(|(_, known)| *known == name).map(|(case, _)| *case).ok_or_else(|| {
            let known: Vec<&str> = Case::ALL.iter().map(|(_, name)| *name).collect();
            format!("no case is called {name:?}; there are {}", known.join(", "))
        })
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Full,
    Quick,
    /// Shows that everything runs; its figures mean nothing.
    Smoke,
}

/// The option that chooses the dialect of the Python peers.
pub(crate) const GED: &str = "--ged";

/// The run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) cases: Vec<Case>,
    pub(crate) markdown: bool,
    pub(crate) flavour: Flavour,
    /// What the wormholes of this run speak.
    pub(crate) dialect: Dialect,
    /// One measurement, whose numbers another process reads, with its arguments.
    pub(crate) child: Option<(Case, Vec<usize>)>,
    scale: Scale,
    bytes: Option<u64>,
}

impl Plan {
    /// A smoke test unless `cargo bench` runs us, which passes `--bench`: `cargo test --all-targets` wants no more. Of the
    /// cases only those that are the program's `own`: the same arguments may be for several programs.
    pub(crate) fn from_arguments(own: &[Case]) -> Outcome<Plan> {
        let mut plan = Plan {
            cases: Vec::new(),
            markdown: false,
            flavour: Flavour::default(),
            dialect: Dialect::Dilated1,
            child: None,
            scale: Scale::Smoke,
            bytes: None,
        };
        let mut quick = false;
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => plan.scale = Scale::Full,
                "--quick" => quick = true,
                "--markdown" => plan.markdown = true,
                GED => plan.dialect = Dialect::Ged,
                "--runtime" => plan.flavour = arguments.next().ok_or("--runtime needs a word")?.parse()?,
                cases::CHILD => {
                    let case = arguments.next().ok_or("no case")?.parse()?;
                    let counts = arguments.by_ref().map(|count| count.parse()).collect::<Result<_, _>>()?;
                    plan.child = Some((case, counts));
                }
                flag if flag.starts_with('-') => return Err(format!("there is no option {flag}").into()),
                name => plan.cases.push(name.parse()?),
            }
        }
        if quick {
            plan.scale = Scale::Quick;
        }
        if env::var_os("DILATED_BENCH_SMOKE").is_some() {
            plan.scale = Scale::Smoke;
        }
        if let Ok(mib) = env::var("DILATED_BENCH_MIB") {
            plan.bytes = Some(mib.parse::<u64>()? << 20);
        }
        if plan.cases.is_empty() {
            plan.cases = own.to_vec();
        }
        plan.cases.retain(|case| own.contains(case));
        Ok(plan)
    }

    fn pick<T>(&self, full: T, quick: T, smoke: T) -> T {
        match self.scale {
            Scale::Full => full,
            Scale::Quick => quick,
            Scale::Smoke => smoke,
        }
    }

    /// Measurements of each figure, of which the median counts.
    pub(crate) fn rounds(&self) -> usize {
        self.pick(5, 3, 1)
    }

    /// The bytes of one transfer.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.unwrap_or_else(|| self.pick(1 << 30, 256 << 20, 4 << 20))
    }

    /// The bytes of a transfer over many subchannels: so many that the first and the last byte of each do not cost more than
    /// all between them.
    pub(crate) fn shared_bytes(&self) -> u64 {
        self.bytes.unwrap_or_else(|| self.pick(8 << 30, 4 << 30, 4 << 20))
    }

    /// Subchannels at once that share them.
    pub(crate) fn crowds(&self) -> [usize; 2] {
        [100, self.pick(10_000, 10_000, 200)]
    }

    /// Round trips of one round.
    pub(crate) fn trips(&self) -> usize {
        self.pick(20_000, 5_000, 200)
    }

    /// The longest that one round of round trips or of traffic without an end goes on.
    pub(crate) fn window(&self) -> Duration {
        self.pick(Duration::from_secs(4), Duration::from_secs(2), Duration::from_millis(200))
    }

    /// Messages of one round.
    pub(crate) fn messages(&self) -> usize {
        self.pick(5_000_000, 1_000_000, 20_000)
    }

    /// Idle subchannels whose memory is measured.
    pub(crate) fn idle(&self) -> usize {
        self.pick(100_000, 100_000, 1_000)
    }

    /// Idle subchannels beside an echo.
    pub(crate) fn idle_beside(&self) -> usize {
        self.pick(10_000, 10_000, 500)
    }

    /// Subchannels that are opened and closed.
    pub(crate) fn churn(&self) -> usize {
        self.pick(100_000, 20_000, 2_000)
    }

    /// Readers beside the one that stands still.
    pub(crate) fn others(&self) -> usize {
        self.pick(1_000, 1_000, 50)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB a transfer, median of {} rounds", self.bytes() >> 20, self.rounds())?;
        if self.scale == Scale::Smoke {
            f.write_str("; a smoke test, whose figures mean nothing")?;
        }
        Ok(())
    }
}
