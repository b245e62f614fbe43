//! The program that is a wire: it owns both ends, each a TAP device, and carries Ethernet frames between them.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_tun::Tun;

use super::wire::WireConfig;

/// The longest frame: neither device has segmentation offload, so none exceeds what a device is set to.
const FRAME: usize = 2048;

/// Frames held back at most; others are lost.
const HELD: usize = 4096;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a wire with the options that [`Lab::wire`](super::Lab::wire) passes, under the commands of
/// [`Wire`](super::Wire), until these end. `tell` reports an event.
///
/// # Errors
///
/// Options that make no sense, and devices that cannot be made.
pub async fn carry(
    options: &Value,
    mut commands: UnboundedReceiver<Value>,
    tell: impl Fn(&Value),
) -> Result<(), Failure> {
    let config = WireConfig::from_json(options)?;
    let (near, far) = (device(options, "near")?, device(options, "far")?);
    // Both directions are alike, but not the same.
    let mut inward = Lane::new(config.clone(), 1);
    let mut outward = Lane::new(config, 0);
    tell(&json!({"event": "ready"}));
    let (mut to_host, mut to_net) = ([0; FRAME], [0; FRAME]);
    loop {
        let due = [inward.due(), outward.due()].into_iter().flatten().min();
        tokio::select! {
            length = near.recv(&mut to_host) => inward.take(&to_host[..length?], now()),
            length = far.recv(&mut to_net) => outward.take(&to_net[..length?], now()),
            () = until(due) => {}
            command = commands.recv() => match command {
                Some(command) => obey(&command, &mut outward, &tell)?,
                None => return Ok(()),
            },
        }
        for (lane, end) in [(&mut inward, &far), (&mut outward, &near)] {
            while let Some(frame) = lane.next(now()) {
                // A device that is down refuses: the cable is out, and the frame is lost.
                let _ = end.send(&frame).await;
            }
        }
    }
}

fn obey(command: &Value, outward: &mut Lane, tell: &impl Fn(&Value)) -> Result<(), Failure> {
    match command["cmd"].as_str() {
        Some("hold") => {
            outward.hold(command["to"].as_str().ok_or("hold what is sent to whom?")?.parse()?);
            tell(&json!({"event": "holding"}));
        }
        Some("release") => {
            let packets = outward.release(now());
            tell(&json!({"event": "released", "packets": packets}));
        }
        _ => return Err(format!("a wire knows no {command}").into()),
    }
    Ok(())
}

fn device(options: &Value, key: &str) -> Result<Tun, Failure> {
    let name = options[key].as_str().ok_or_else(|| format!("{key} is no name"))?;
    let made = Tun::builder().name(name).tap().build()?;
    made.into_iter().next().ok_or_else(|| "no device was made".into())
}

fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the wire's driver; its lanes take the time as an argument"
    )]
    Instant::now()
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// One direction of a wire.
struct Lane {
    config: WireConfig,
    rng: StdRng,
    /// When the slow part of the wire has passed on what it took so far.
    free: Option<Instant>,
    /// On their way, with the time of arrival, which never decreases.
    travelling: VecDeque<(Instant, Vec<u8>)>,
    hold: Option<Hold>,
}

/// What is held back.
struct Hold {
    to: Ipv4Addr,
    connections: BTreeSet<(u16, u16)>,
    frames: Vec<Vec<u8>>,
}

impl Lane {
    fn new(config: WireConfig, number: u64) -> Self {
        let rng = StdRng::seed_from_u64(config.seed.wrapping_mul(2).wrapping_add(number));
        Self { config, rng, free: None, travelling: VecDeque::new(), hold: None }
    }

    /// A frame enters.
    fn take(&mut self, frame: &[u8], now: Instant) {
        if let Some(hold) = &mut self.hold
            && hold.wants(frame)
        {
            if hold.frames.len() < HELD {
                hold.frames.push(frame.to_vec());
            }
            return;
        }
        if let Some(arrival) = self.arrival(frame.len(), now) {
            self.travelling.push_back((arrival, frame.to_vec()));
        }
    }

    /// When a frame that enters now will arrive. `None`: never.
    fn arrival(&mut self, length: usize, now: Instant) -> Option<Instant> {
        if self.rng.random_bool(self.config.loss) {
            return None;
        }
        let mut leaves = now;
        if let Some(rate) = self.config.rate {
            let start = self.free.map_or(now, |free| free.max(now));
            let waiting = start.duration_since(now).as_secs_f64() * f64::from(rate);
            if waiting + length as f64 > f64::from(self.config.queue) {
                return None;
            }
            leaves = start + Duration::from_secs_f64(length as f64 / f64::from(rate));
            self.free = Some(leaves);
        }
        let arrival = leaves + self.config.delay + self.config.jitter.mul_f64(self.rng.random::<f64>());
        Some(self.travelling.back().map_or(arrival, |(last, _)| arrival.max(*last)))
    }

    /// When the next frame arrives.
    fn due(&self) -> Option<Instant> {
        self.travelling.front().map(|(arrival, _)| *arrival)
    }

    /// A frame that has arrived.
    fn next(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.due().filter(|arrival| *arrival <= now)?;
        self.travelling.pop_front().map(|(_, frame)| frame)
    }

    fn hold(&mut self, to: Ipv4Addr) {
        self.hold = Some(Hold { to, connections: BTreeSet::new(), frames: Vec::new() });
    }

    fn release(&mut self, now: Instant) -> usize {
        let frames = self.hold.take().map(|hold| hold.frames).unwrap_or_default();
        // They go on from here as if they entered now.
        for frame in &frames {
            self.take(frame, now);
        }
        frames.len()
    }
}

impl Hold {
    /// Whether the frame belongs to a connection to hold back. The first of each only tells us of it.
    fn wants(&mut self, frame: &[u8]) -> bool {
        let Some(segment) = Segment::of(frame).filter(|segment| segment.to == self.to) else { return false };
        if segment.opens {
            // A repeated one is held: a lost first one stays lost.
            return !self.connections.insert(segment.ports);
        }
        self.connections.contains(&segment.ports)
    }
}

/// What is to be known about a TCP segment.
struct Segment {
    to: Ipv4Addr,
    /// From, to.
    ports: (u16, u16),
    opens: bool,
}

impl Segment {
    /// `None` for everything but TCP over IPv4.
    fn of(frame: &[u8]) -> Option<Self> {
        let (ethernet, packet) = frame.split_at_checked(14)?;
        let (kind, protocol) = (&ethernet[12..], packet.get(9)?);
        if kind != [8, 0] || *protocol != 6 {
            return None;
        }
        let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
        let tcp = packet.get(usize::from(packet[0] & 15) * 4..)?;
        let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
        // SYN without ACK.
        Some(Self { to: to.into(), ports: (port(0)?, port(2)?), opens: tcp.get(13)? & 0x12 == 2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// An Ethernet frame with a TCP segment for 10.0.0.2.
    fn segment(ports: (u16, u16), flags: u8) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 20];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[14 + 9] = 6;
        frame[14 + 16..14 + 20].copy_from_slice(&[10, 0, 0, 2]);
        frame[34..36].copy_from_slice(&ports.0.to_be_bytes());
        frame[36..38].copy_from_slice(&ports.1.to_be_bytes());
        frame[34 + 13] = flags;
        frame
    }

    #[test]
    fn frames_arrive_after_their_delay_in_order() {
        let start = now();
        let config = WireConfig { delay: 50 * MS, jitter: 20 * MS, ..WireConfig::default() };
        let mut lane = Lane::new(config, 0);
        for number in 0..100 {
            lane.take(&[number], start + MS * u32::from(number));
        }
        assert!(lane.due().expect("on their way") >= start + 50 * MS);
        assert!(lane.next(start + 49 * MS).is_none());
        let end = start + 99 * MS + 70 * MS;
        let arrived: Vec<u8> = std::iter::from_fn(|| lane.next(end)).flatten().collect();
        assert_eq!(arrived, Vec::from_iter(0..100));
    }

    #[test]
    fn a_slow_wire_queues_and_then_loses() {
        let start = now();
        let config = WireConfig { rate: Some(1000), queue: 500, ..WireConfig::default() };
        let mut lane = Lane::new(config, 0);
        for _ in 0..10 {
            lane.take(&[0; 100], start);
        }
        assert_eq!(lane.travelling.len(), 5, "the queue takes five");
        assert!(lane.next(start + 99 * MS).is_none());
        assert!(lane.next(start + 101 * MS).is_some(), "100 bytes take 100 ms");
        lane.take(&[0; 100], start + 101 * MS);
        assert_eq!(lane.travelling.len(), 5, "there is room again");
    }

    #[test]
    fn the_part_that_is_lost_is_as_configured_and_repeats_with_its_seed() {
        let lost = |seed| {
            let mut lane = Lane::new(WireConfig { loss: 0.1, seed, ..WireConfig::default() }, 0);
            let start = now();
            let arrives = |_| lane.arrival(100, start).is_some();
            Vec::from_iter((0..1000).map(arrives))
        };
        let count = lost(1).iter().filter(|arrived| !**arrived).count();
        assert!((50..150).contains(&count), "{count} of 1000");
        assert!(lost(1) == lost(1) && lost(1) != lost(2));
    }

    #[test]
    fn new_connections_are_held_from_their_second_packet_on() {
        let (syn, ack, start) = (2, 16, now());
        let mut lane = Lane::new(WireConfig::default(), 0);
        lane.hold(Ipv4Addr::new(10, 0, 0, 2));
        let passes = |lane: &mut Lane, frame: &[u8]| {
            lane.take(frame, start);
            lane.next(start).is_some()
        };
        assert!(passes(&mut lane, &segment((1, 1), ack)), "an old connection");
        assert!(passes(&mut lane, &segment((2, 1), syn)));
        assert!(!passes(&mut lane, &segment((2, 1), ack)));
        assert!(!passes(&mut lane, &segment((2, 1), syn)), "said again");
        assert!(passes(&mut lane, &segment((1, 2), syn | ack)), "a connection that the other side begins");
        assert!(passes(&mut lane, &segment((1, 2), ack)));
        assert_eq!(lane.release(start), 2);
        assert!(lane.next(start).is_some() && lane.next(start).is_some() && lane.next(start).is_none());
        assert!(passes(&mut lane, &segment((3, 1), syn)) && passes(&mut lane, &segment((3, 1), ack)));
    }
}
