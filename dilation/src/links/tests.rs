use std::time::Duration;

use bytes::Bytes;
use dilated_subchannel::{SubchannelId, frame::Frames};

use super::*;

/// Counts what it is told.
#[derive(Debug, Default)]
struct Told {
    ups: u32,
    downs: u32,
    resumed: Vec<Vec<Received>>,
    frames: Vec<Frame>,
    sent: u64,
    acknowledged: u64,
}

impl Streams for Told {
    fn handle_frames(&mut self, frames: &mut Vec<Frame>, _: Instant) -> Result<(), Violation> {
        self.frames.append(frames);
        Ok(())
    }

    fn resume(&mut self) -> Vec<Received> {
        vec![received(1, 7)]
    }

    fn handle_resume(&mut self, entries: Vec<Received>, _: Instant) -> Result<(), Violation> {
        self.resumed.push(entries);
        Ok(())
    }

    fn link_up(&mut self) {
        self.ups += 1;
    }

    fn link_down(&mut self) {
        self.downs += 1;
    }

    fn progress(&self) -> Progress {
        Progress { sent: self.sent, acknowledged: self.acknowledged }
    }

    fn set_round_trip(&mut self, _: Duration) {}
}

fn received(id: u32, received: u64) -> Received {
    Received { id: SubchannelId(id), received, limit: 100 }
}

struct Bench {
    links: Links,
    told: Told,
    now: Instant,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    fn new(role: Role) -> Bench {
        let links = Links::new(role, LivenessConfig::default(), 10);
        Bench { links, told: Told::default(), now: Instant::now() }
    }

    fn add(&mut self, path: &Path) -> LinkId {
        self.links.add(path.clone(), self.now)
    }

    fn activate(&mut self, id: LinkId) {
        self.links.activate(id, &mut self.told, self.now);
    }

    /// The peer sends these frames, in one record.
    fn hear(&mut self, id: LinkId, frames: &[Frame]) -> Option<LinkEvent> {
        let mut record = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut record));
        self.links.handle_bytes(id, self.now);
        self.links.handle_record(id, Frames::new(Bytes::from(record)), self.now);
        let event = self.links.handle_inbound(id, &mut self.told, self.now);
        self.links.handle_progress(id, &mut self.told, self.now);
        event
    }

    fn said(&mut self, id: LinkId) -> Vec<Frame> {
        let mut record = Vec::new();
        while self.links.poll_transmit(id, &mut record) {}
        Frames::new(record.into()).map(Result::unwrap).collect()
    }

    /// A link that both agree on.
    fn linked(role: Role, path: &Path) -> (Bench, LinkId) {
        let mut bench = Bench::new(role);
        let id = bench.add(path);
        if role == Role::Leader {
            bench.activate(id);
        }
        assert_eq!(bench.hear(id, &resume(1)), Some(LinkEvent::Changed));
        assert_eq!(bench.said(id), resume_of(1, &[received(1, 7)]));
        assert_eq!(bench.links.sending(), Some(id));
        (bench, id)
    }

    /// Time goes by until one of the links has something to say of it.
    fn wait(
        &mut self,
        most: Duration,
        ids: &[LinkId],
    ) -> Vec<(LinkId, Result<Option<LinkEvent>, LinkEvent>)> {
        let (end, mut found) = (self.now + most, Vec::new());
        while self.now < end {
            self.now += Duration::from_millis(10);
            for id in ids {
                self.links.handle_progress(*id, &mut self.told, self.now);
                let result = self.links.handle_timeout(*id, &mut self.told, self.now);
                if result != Ok(None) {
                    found.push((*id, result));
                }
            }
        }
        found
    }
}

fn resume_of(epoch: u64, entries: &[Received]) -> Vec<Frame> {
    Frame::resume(epoch, entries)
}

fn resume(epoch: u64) -> Vec<Frame> {
    resume_of(epoch, &[])
}

fn direct() -> Path {
    Path::inbound("192.0.2.1:9".parse().unwrap())
}

fn relay() -> Path {
    Path::relay(&"tcp:relay.example:4001".parse().unwrap())
}

#[test]
fn what_comes_before_resume_in_a_record_is_handed_over_before() {
    let mut bench = Bench::new(Role::Follower);
    let id = bench.add(&direct());
    let credit = Frame::Credit(received(1, 3));
    let mut frames = vec![credit.clone()];
    frames.extend(resume_of(1, &[received(2, 5)]));
    frames.push(Frame::Ping(9));
    assert_eq!(bench.hear(id, &frames), Some(LinkEvent::Changed));
    assert_eq!((bench.told.frames, bench.told.resumed), (vec![credit], vec![vec![received(2, 5)]]));
    assert_eq!((bench.told.ups, bench.told.downs), (0, 0), "the first link of all is for a Leader to say");
}

#[test]
fn the_end_of_the_active_link_is_the_beginning_of_the_other() {
    let (mut bench, first) = Bench::linked(Role::Leader, &direct());
    assert_eq!(bench.links.judge(&relay(), false, true, bench.now), Some(false));
    let second = bench.add(&relay());
    assert_eq!(bench.links.judge(&relay(), false, true, bench.now), None, "one is enough");
    let lost = LinkEvent::Lost("gone".to_owned());
    let event = bench.links.handle_end(first, lost.clone(), &mut bench.told, bench.now);
    assert_eq!((event, bench.links.current()), (LinkEvent::Changed, Some(second)));
    assert_eq!(bench.said(second), resume_of(2, &[received(1, 7)]));
    assert_eq!(bench.links.sending(), None, "before the answer");
    assert_eq!(bench.hear(second, &resume(2)), Some(LinkEvent::Changed));
    assert_eq!(bench.links.sending(), Some(second));
    assert_eq!(bench.links.handle_end(second, lost.clone(), &mut bench.told, bench.now), lost);
    assert!(bench.links.is_empty());
}

#[test]
fn two_links_that_are_silent_do_not_take_turns() {
    let (mut bench, first) = Bench::linked(Role::Leader, &direct());
    let second = bench.add(&relay());
    // Both paths are measured, and both fall silent.
    for id in [first, second] {
        bench.wait(Duration::from_millis(10), &[id]);
        for frame in bench.said(id) {
            if let Frame::Ping(ping) = frame {
                bench.hear(id, &[Frame::Pong(ping)]);
            }
        }
    }
    bench.links.suspect("a test", |_| true, &mut bench.told, bench.now);
    let found = bench.wait(Duration::from_millis(480), &[first, second]);
    assert_eq!(found, [(first, Ok(Some(LinkEvent::Changed)))], "the other is no better");
    assert_eq!(bench.links.current(), Some(second));
}

#[test]
fn a_resume_that_has_not_left_is_outdated_by_the_next() {
    let (mut bench, first) = Bench::linked(Role::Leader, &direct());
    let second = bench.add(&relay());
    bench.activate(second);
    bench.activate(first);
    assert_eq!(bench.said(second), []);
    assert_eq!(bench.said(first), resume_of(3, &[received(1, 7)]));
}

#[test]
fn a_list_that_was_broken_off_does_not_become_part_of_the_next() {
    let (mut bench, id) = Bench::linked(Role::Follower, &direct());
    let part = Frame::Resume { epoch: 2, more: true, entries: vec![received(9, 9)] };
    assert_eq!(bench.hear(id, &[part]), None);
    bench.hear(id, &resume_of(3, &[received(1, 2)]));
    assert_eq!(bench.told.resumed.last(), Some(&vec![received(1, 2)]));
    let long = vec![received(1, 2); 11];
    let event = bench.hear(id, &resume_of(4, &long));
    assert!(matches!(event, Some(LinkEvent::Fatal(DilationError::Protocol(_)))), "{event:?}");
}

#[test]
fn a_direct_link_that_does_not_last_is_not_tried_again_at_once() {
    let (mut bench, old) = Bench::linked(Role::Leader, &relay());
    assert_eq!(bench.links.poll_wanted(false, bench.now), Some(Some(Better::Direct)));
    for (epoch, wait) in [(2, 10), (4, 20), (6, 40)] {
        assert_eq!(bench.links.judge(&direct(), false, false, bench.now), Some(true));
        let new = bench.add(&direct());
        bench.activate(new);
        bench.hear(new, &resume(epoch));
        let lost = LinkEvent::Lost("gone".to_owned());
        assert_eq!(bench.links.handle_end(new, lost, &mut bench.told, bench.now), LinkEvent::Changed);
        bench.hear(old, &resume(epoch + 1));
        bench.now += Duration::from_secs(wait) - Duration::from_millis(1);
        assert_eq!(bench.links.judge(&direct(), false, false, bench.now), None, "epoch {epoch}");
        assert_eq!(bench.links.judge(&direct(), true, false, bench.now), Some(true), "unless it is needed");
        bench.now += Duration::from_millis(1);
    }
}

#[test]
fn epochs_go_on_from_one_generation_to_the_next() {
    let (mut bench, first) = Bench::linked(Role::Leader, &direct());
    bench.links.reset(&mut bench.told);
    assert!(!bench.links.contains(first) && !bench.links.heard());
    let second = bench.add(&direct());
    bench.activate(second);
    assert_eq!(bench.said(second), resume_of(2, &[received(1, 7)]));
    assert_eq!(bench.links.sending(), None, "something was sent before");
    assert_eq!(bench.told.ups, 1, "only the very first link is up at once");
}

#[test]
fn a_link_that_stands_by_goes_another_way() {
    let (mut bench, active) = Bench::linked(Role::Leader, &direct());
    let (same, other) = (bench.add(&direct()), bench.add(&relay()));
    assert_eq!(bench.links.poll_wanted(true, bench.now), None, "nothing is wanted, as before");
    assert!(bench.links.contains(active) && bench.links.contains(other) && !bench.links.contains(same));
    bench.links.poll_wanted(false, bench.now);
    assert!(!bench.links.contains(other));
    assert_eq!(bench.links.poll_wanted(true, bench.now), Some(Some(Better::Other(direct()))));
}

#[test]
fn a_link_that_takes_data_with_it_and_gets_none_across_makes_the_next_one_careful() {
    for (sent, acknowledged, barren) in [(0, 0, false), (9, 0, true), (12, 9, false)] {
        let (mut bench, id) = Bench::linked(Role::Leader, &direct());
        for progress in [(sent.min(9), 0), (sent, acknowledged)] {
            (bench.told.sent, bench.told.acknowledged) = progress;
            bench.links.handle_progress(id, &mut bench.told, bench.now);
        }
        bench.links.handle_end(id, LinkEvent::Lost("gone".into()), &mut bench.told, bench.now);
        assert_eq!(bench.links.is_barren(), barren, "{sent} {acknowledged}");
    }
}
