//! What was measured, as both sides tell each other and as people read it.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use crate::quote::{self, bytes};

/// Bytes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) bytes: u64,
    /// From the first bytes at the receiver to the end.
    pub(crate) time: Duration,
}

impl Flow {
    pub(crate) fn to_json(self) -> Value {
        json!({ "bytes": self.bytes, "micros": micros(self.time) })
    }

    pub(crate) fn from_json(value: &Value) -> Option<Flow> {
        Some(Flow { bytes: value.get("bytes")?.as_u64()?, time: duration(value.get("micros")?)? })
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.time.is_zero() {
            return f.write_str("too little arrived to tell");
        }
        let rate = self.bytes as f64 / self.time.as_secs_f64() / 1e6;
        let digits = if rate < 10.0 { 2 } else { 0 };
        write!(f, "{rate:.digits$} MB/s ({} in {})", bytes(self.bytes), quote::duration(self.time))
    }
}

/// How long a small question took to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoundTrip {
    median: Duration,
    tail: Duration,
    count: u64,
}

impl RoundTrip {
    /// Nothing if not one was measured.
    pub(crate) fn of(mut trips: Vec<Duration>) -> Option<RoundTrip> {
        trips.sort_unstable();
        let at = |index: usize| trips.get(index).copied();
        let count = trips.len();
        Some(RoundTrip { median: at(count / 2)?, tail: at(count * 99 / 100)?, count: count as u64 })
    }

    fn to_json(self) -> Value {
        json!({ "median": micros(self.median), "tail": micros(self.tail), "count": self.count })
    }

    fn from_json(value: &Value) -> Option<RoundTrip> {
        Some(RoundTrip {
            median: duration(value.get("median")?)?,
            tail: duration(value.get("tail")?)?,
            count: value.get("count")?.as_u64()?,
        })
    }
}

impl fmt::Display for RoundTrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |time: Duration| match micros(time) {
            short @ 0..10_000 => format!("{short} µs"),
            _ => quote::duration(time),
        };
        write!(f, "median {}, 99th percentile {} (of {})", show(self.median), show(self.tail), self.count)
    }
}

/// Processor time, for what was sent and received together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cpu {
    Sides { here: Option<Duration>, there: Option<Duration> },
    OneProcess(Option<Duration>),
}

/// Everything that one side knows at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Findings {
    round_trip: RoundTrip,
    sent: Flow,
    received: Flow,
    cpu: Cpu,
}

impl Findings {
    pub(crate) fn new(round_trip: RoundTrip, sent: Flow, received: Flow) -> Findings {
        Findings { round_trip, sent, received, cpu: Cpu::Sides { here: None, there: None } }
    }

    /// With the processor time of this side and of the other.
    pub(crate) fn with_cpu(self, here: Option<Duration>, there: Option<Duration>) -> Findings {
        Findings { cpu: Cpu::Sides { here, there }, ..self }
    }

    /// As both sides are in one process, whose time each of them took for its own.
    pub(crate) fn of_one_process(self) -> Findings {
        match self.cpu {
            Cpu::Sides { here, .. } => Findings { cpu: Cpu::OneProcess(here), ..self },
            Cpu::OneProcess(_) => self,
        }
    }

    /// For the other side, whose sending is our receiving.
    pub(crate) fn to_json(self) -> Value {
        json!({
            "round-trip": self.round_trip.to_json(),
            "sent": self.received.to_json(),
            "received": self.sent.to_json(),
        })
    }

    pub(crate) fn from_json(value: &Value) -> Option<Findings> {
        let flow = |name: &str| Flow::from_json(value.get(name)?);
        let round_trip = RoundTrip::from_json(value.get("round-trip")?)?;
        Some(Findings::new(round_trip, flow("sent")?, flow("received")?))
    }

    /// Seconds for 10^9 bytes.
    fn cost(&self, time: Option<Duration>) -> String {
        let gigabytes = self.sent.bytes.saturating_add(self.received.bytes) as f64 / 1e9;
        match time {
            Some(time) if gigabytes > 0.0 => format!("{:.2} s/GB", time.as_secs_f64() / gigabytes),
            _ => "not known".to_owned(),
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "round trip  {}", self.round_trip)?;
        match self.cpu {
            Cpu::Sides { here, there } => {
                writeln!(f, "sent        {}\nreceived    {}", self.sent, self.received)?;
                write!(f, "processor   {} here, {} on the other side", self.cost(here), self.cost(there))
            }
            Cpu::OneProcess(time) => {
                writeln!(f, "one way     {}\nback        {}", self.sent, self.received)?;
                write!(f, "processor   {}, both sides together", self.cost(time))
            }
        }
    }
}

/// Microseconds are what the two sides tell each other.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time that the other side told.
pub(crate) fn duration(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Findings {
        let trips = (1..=200).rev().map(Duration::from_micros).collect();
        let flow = |bytes| Flow { bytes, time: Duration::from_millis(2_500) };
        Findings::new(RoundTrip::of(trips).unwrap(), flow(2_000_000_000), flow(1_000_000))
    }

    #[test]
    fn the_other_side_reads_the_same_the_other_way_round() {
        let ours = findings();
        let theirs = Findings::from_json(&ours.to_json()).unwrap();
        assert_eq!((theirs.sent, theirs.received), (ours.received, ours.sent));
        assert_eq!(theirs.round_trip, ours.round_trip);
        for strange in [json!({}), json!([]), json!({ "round-trip": 1, "sent": 1, "received": 1 })] {
            assert_eq!(Findings::from_json(&strange), None);
        }
    }

    #[test]
    fn people_can_read_it() {
        let ours = findings().with_cpu(Some(Duration::from_secs(1)), None);
        assert_eq!(
            ours.to_string(),
            "round trip  median 101 µs, 99th percentile 199 µs (of 200)\n\
             sent        800 MB/s (2.0 GB in 2.5 s)\n\
             received    0.40 MB/s (1.0 MB in 2.5 s)\n\
             processor   0.50 s/GB here, not known on the other side"
        );
        let alone = ours.of_one_process().to_string();
        assert!(alone.contains("one way     800") && alone.contains("0.50 s/GB, both sides"), "{alone}");
        let nothing = Flow { bytes: 0, time: Duration::ZERO };
        assert_eq!(nothing.to_string(), "too little arrived to tell");
        assert_eq!(RoundTrip::of(Vec::new()), None);
        let slow = RoundTrip::of(vec![Duration::from_millis(20)]).unwrap();
        assert_eq!(slow.to_string(), "median 20 ms, 99th percentile 20 ms (of 1)");
    }
}
