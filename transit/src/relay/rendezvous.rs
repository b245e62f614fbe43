//! Who waits for whom. No sockets and no clock: connection names in, decisions out.

use std::collections::BTreeMap;

use super::line::{Request, Side, Token};

/// Names a connection. The driver chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// What becomes of a client that sent its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody is there yet. `replaced` must be closed: its token has too many waiting connections.
    Wait {
        /// The oldest connection with the same token.
        replaced: Option<ClientId>,
    },
    /// Relay between this client and `partner`, and close all `redundant` ones.
    Pair {
        /// Waited until now, and does not any more.
        partner: ClientId,
        /// Spare connections of either side with the same token.
        redundant: Vec<ClientId>,
    },
    /// Too many clients wait already.
    Full,
}

/// The waiting clients of a relay.
#[derive(Debug)]
pub struct Rendezvous {
    waiting: BTreeMap<Token, Vec<(Option<Side>, ClientId)>>,
    total: usize,
    limit: usize,
    per_token: usize,
}

impl Rendezvous {
    /// Nobody waits. At most `limit` clients may, and `per_token` with the same token.
    #[must_use]
    pub fn new(limit: usize, per_token: usize) -> Self {
        Self { waiting: BTreeMap::new(), total: 0, limit, per_token: per_token.max(1) }
    }

    /// A client sent its request.
    ///
    /// Two clients match if their tokens are equal and their sides differ, or if one of them has no side. Of
    /// several candidates the newest is taken: a client that reconnected may have left dead connections behind.
    pub fn register(&mut self, request: &Request, id: ClientId) -> Decision {
        let waiting = self.waiting.entry(request.token).or_default();
        let matches = |side: &Option<Side>| side.is_none() || request.side.is_none() || *side != request.side;
        if let Some(index) = waiting.iter().rposition(|(side, _)| matches(side)) {
            let (_, partner) = waiting.remove(index);
            let redundant: Vec<ClientId> = waiting.iter().map(|(_, id)| *id).collect();
            self.total -= redundant.len() + 1;
            self.waiting.remove(&request.token);
            return Decision::Pair { partner, redundant };
        }
        let replaced = (waiting.len() >= self.per_token).then(|| waiting.remove(0).1);
        if replaced.is_none() {
            if self.total >= self.limit {
                if waiting.is_empty() {
                    self.waiting.remove(&request.token);
                }
                return Decision::Full;
            }
            self.total += 1;
        }
        waiting.push((request.side, id));
        Decision::Wait { replaced }
    }

    /// A waiting client is gone. False if it does not wait any more, because it was paired or closed.
    pub fn unregister(&mut self, token: &Token, id: ClientId) -> bool {
        let Some(waiting) = self.waiting.get_mut(token) else { return false };
        let Some(index) = waiting.iter().position(|(_, waiting)| *waiting == id) else { return false };
        waiting.remove(index);
        if waiting.is_empty() {
            self.waiting.remove(token);
        }
        self.total -= 1;
        true
    }

    /// How many clients wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAIT: Decision = Decision::Wait { replaced: None };

    fn request(token: u8, side: Option<u8>) -> Request {
        Request { token: Token([token; 64]), side: side.map(|side| Side([side; 16])) }
    }

    fn pair(partner: u64, redundant: &[u64]) -> Decision {
        Decision::Pair {
            partner: ClientId(partner),
            redundant: redundant.iter().map(|id| ClientId(*id)).collect(),
        }
    }

    #[test]
    fn two_sides_meet() {
        for (first, second) in [(None, None), (Some(1), None), (None, Some(1)), (Some(1), Some(2))] {
            let mut table = Rendezvous::new(10, 10);
            assert_eq!(table.register(&request(7, first), ClientId(1)), WAIT);
            assert_eq!(table.register(&request(8, second), ClientId(2)), WAIT, "another token");
            assert_eq!(table.register(&request(7, second), ClientId(3)), pair(1, &[]));
            assert_eq!(table.len(), 1);
        }
    }

    #[test]
    fn the_same_side_waits_beside_itself_and_leftovers_go() {
        let mut table = Rendezvous::new(10, 10);
        assert_eq!(table.register(&request(7, Some(1)), ClientId(1)), WAIT);
        assert_eq!(table.register(&request(7, Some(1)), ClientId(2)), WAIT);
        assert_eq!(table.register(&request(7, Some(1)), ClientId(3)), WAIT);
        assert_eq!(table.len(), 3);
        assert_eq!(table.register(&request(7, Some(2)), ClientId(4)), pair(3, &[1, 2]));
        assert!(table.is_empty());
        assert_eq!(table.register(&request(7, Some(2)), ClientId(5)), WAIT, "a new meeting");
    }

    #[test]
    fn who_left_is_not_met() {
        let mut table = Rendezvous::new(10, 10);
        table.register(&request(7, Some(1)), ClientId(1));
        table.register(&request(7, Some(1)), ClientId(2));
        assert!(table.unregister(&Token([7; 64]), ClientId(2)));
        assert!(!table.unregister(&Token([7; 64]), ClientId(2)));
        assert!(!table.unregister(&Token([9; 64]), ClientId(1)));
        assert_eq!(table.register(&request(7, Some(2)), ClientId(3)), pair(1, &[]));
        assert!(!table.unregister(&Token([7; 64]), ClientId(1)), "paired");
    }

    #[test]
    fn limits() {
        let mut table = Rendezvous::new(2, 2);
        table.register(&request(1, Some(1)), ClientId(1));
        table.register(&request(1, Some(1)), ClientId(2));
        assert_eq!(table.register(&request(2, Some(1)), ClientId(3)), Decision::Full);
        assert_eq!(
            table.register(&request(1, Some(1)), ClientId(4)),
            Decision::Wait { replaced: Some(ClientId(1)) }
        );
        assert_eq!(table.len(), 2);
        assert_eq!(table.register(&request(1, Some(2)), ClientId(5)), pair(4, &[2]), "pairing needs no room");
        assert_eq!(table.register(&request(2, Some(1)), ClientId(6)), WAIT);
    }

    proptest! {
        #[test]
        fn the_count_is_right(steps in proptest::collection::vec((0..3_u8, 0..3_u8, any::<bool>()), 0..100)) {
            let mut table = Rendezvous::new(8, 3);
            for (id, (token, side, leave)) in (0..).zip(steps) {
                if leave {
                    table.unregister(&Token([token; 64]), ClientId(id / 2));
                } else {
                    table.register(&request(token, side.checked_sub(1)), ClientId(id));
                }
                prop_assert_eq!(table.len(), table.waiting.values().map(Vec::len).sum::<usize>());
                prop_assert!(table.waiting.values().all(|waiting| (1..=3).contains(&waiting.len())));
                prop_assert!(table.len() <= 8);
            }
        }
    }
}
