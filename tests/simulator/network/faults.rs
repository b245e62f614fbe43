//! What breaks connections, and what follows when paths change.

use rand::RngExt;

use super::{Connection, LONGEST_RETRY, Network, Place, Segment};
use crate::queue::Event;

impl Network {
    /// The network itself ends the connection, for both. What is on the way still arrives if the cut is clean;
    /// otherwise a random part is lost, at any byte.
    pub(crate) fn cut(&mut self, connection: u64, clean: bool) {
        for end in [0, 1] {
            let place = Place { connection, end };
            let Some(found) = self.connections.get_mut(&connection) else { return };
            if !clean {
                let wire = &mut found.ends[end].wire;
                let mut kept = self.rng.random_range(0..=wire.bytes);
                wire.segments.retain_mut(|(_, segment)| match segment {
                    Segment::Data(bytes) => {
                        bytes.truncate(kept);
                        kept -= bytes.len();
                        !bytes.is_empty()
                    }
                    _ => true,
                });
                wire.bytes = wire.segments.iter().map(|(_, segment)| segment.len()).sum();
            }
            self.send(place, Segment::Broken);
        }
    }

    /// Ends all connections of a host, because its process dies.
    pub(crate) fn kill(&mut self, host: usize) {
        let place = |(id, connection): (&u64, &Connection)| {
            let end = connection.ends.iter().position(|end| end.host == host)?;
            Some(Place { connection: *id, end })
        };
        let places: Vec<Place> = self.connections.iter().filter_map(place).collect();
        for place in places {
            self.abort(place);
        }
    }

    /// The paths have changed: what was held and may pass now is tried again, at TCP's next attempt.
    pub(crate) fn retry(&mut self) {
        for id in self.connections() {
            for end in [0, 1] {
                let place = Place { connection: id, end };
                let connection = &self.connections[&id];
                let (to, from) = (&connection.ends[end], &connection.ends[1 - end]);
                let Some(since) = to.wire.held_since.filter(|_| self.passes(from, to)) else { continue };
                let most = (self.now - since).min(LONGEST_RETRY);
                let at = self.now + self.up_to(most) + self.travel();
                let key = self.queue.schedule(at, Event::Arrival(place));
                let wire = &mut self.connections.get_mut(&id).expect("listed").ends[end].wire;
                wire.held_since = None;
                wire.arrival = Some(key);
            }
        }
    }
}
