//! Which of several links is the active one (specification `dilated-1`, section "The active link"). No I/O, no clock.

use std::cmp::Ordering;

use dilated_subchannel::frame::MAX_VARINT;
use dilated_transit::Role;

/// A link of this side, as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub(super) u64);

/// What the peer's RESUME means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its link is the active one now. `answer`: our RESUME of the same epoch goes there first.
    Adopt { answer: bool },
    /// It is late, or its activation lost against ours.
    Ignore,
    /// Activations of ours that the peer has never heard of have gone beyond it, and there is no active link: we have to
    /// activate this one ourselves.
    Exceed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing concerning subchannels can be sent.
    None,
    /// Our RESUME is on its way over this link; the peer's has not come.
    Asked(LinkId),
    Active(LinkId),
}

/// The agreement with the peer on one active link.
#[derive(Debug)]
pub(super) struct Activation {
    role: Role,
    /// The greatest that was sent or received.
    epoch: u64,
    state: State,
}

impl Activation {
    pub(super) fn new(role: Role) -> Activation {
        Activation { role, epoch: 0, state: State::None }
    }

    /// The link on which what concerns subchannels may be sent. That of epoch 1 may be used at once, because nothing was
    /// sent before.
    pub(super) fn sending(&self) -> Option<LinkId> {
        match self.state {
            State::Active(link) => Some(link),
            State::Asked(link) if self.epoch == 1 => Some(link),
            _ => None,
        }
    }

    /// The active link, or the one that is to be.
    pub(super) fn current(&self) -> Option<LinkId> {
        match self.state {
            State::Active(link) | State::Asked(link) => Some(link),
            State::None => None,
        }
    }

    /// Whether the peer's answer to our RESUME is missing.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked(_))
    }

    /// We make this link the active one. Returns the epoch of the RESUME to send there.
    pub(super) fn activate(&mut self, link: LinkId) -> u64 {
        // A peer that has jumped to the last one gets no other.
        self.epoch = (self.epoch + 1).min(MAX_VARINT);
        self.state = State::Asked(link);
        self.epoch
    }

    /// The peer's RESUME is complete.
    pub(super) fn handle_resume(&mut self, link: LinkId, epoch: u64) -> Verdict {
        let answer = match (epoch.cmp(&self.epoch), self.state) {
            (Ordering::Greater, _) => true,
            (Ordering::Equal, State::Asked(asked)) if asked == link => false,
            // Both activated at once, each another link; ours may be gone already.
            (Ordering::Equal, State::Asked(_) | State::None) if self.role == Role::Follower => true,
            (_, State::None) => return Verdict::Exceed,
            (Ordering::Equal | Ordering::Less, _) => return Verdict::Ignore,
        };
        self.epoch = epoch;
        self.state = State::Active(link);
        Verdict::Adopt { answer }
    }

    /// This link is gone. Returns whether it was the active one, or was to be.
    pub(super) fn handle_lost(&mut self, link: LinkId) -> bool {
        let current = self.current() == Some(link);
        if current {
            self.state = State::None;
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);
    const ADOPT: Verdict = Verdict::Adopt { answer: false };
    const ANSWER: Verdict = Verdict::Adopt { answer: true };

    fn pair() -> (Activation, Activation) {
        (Activation::new(Role::Leader), Activation::new(Role::Follower))
    }

    /// Both have A as their active link, in epoch 1.
    fn linked() -> (Activation, Activation) {
        let (mut leader, mut follower) = pair();
        assert_eq!(leader.activate(A), 1);
        assert_eq!(leader.sending(), Some(A), "before epoch 1 nothing was sent");
        assert_eq!(follower.handle_resume(A, 1), ANSWER);
        assert_eq!(leader.handle_resume(A, 1), ADOPT);
        (leader, follower)
    }

    #[test]
    fn either_side_activates_and_nothing_is_sent_before_the_answer() {
        for leads in [true, false] {
            let (leader, follower) = linked();
            let (mut asks, mut answers) = if leads { (leader, follower) } else { (follower, leader) };
            assert_eq!(asks.activate(B), 2);
            assert_eq!((asks.sending(), asks.current()), (None, Some(B)));
            assert_eq!(answers.handle_resume(B, 2), ANSWER);
            assert_eq!(answers.sending(), Some(B));
            assert_eq!(asks.handle_resume(B, 2), ADOPT);
            assert_eq!(asks.sending(), Some(B));
        }
    }

    #[test]
    fn the_leader_wins_when_both_activate_at_once() {
        let (mut leader, mut follower) = linked();
        assert_eq!((leader.activate(A), follower.activate(B)), (2, 2));
        assert_eq!(leader.handle_resume(B, 2), Verdict::Ignore);
        assert_eq!(follower.handle_resume(A, 2), ANSWER);
        assert_eq!(leader.handle_resume(A, 2), ADOPT);
        assert_eq!((leader.sending(), follower.sending()), (Some(A), Some(A)));
        // The same link: each is the answer to the other.
        assert_eq!((leader.activate(B), follower.activate(B)), (3, 3));
        assert_eq!((leader.handle_resume(B, 3), follower.handle_resume(B, 3)), (ADOPT, ADOPT));
    }

    #[test]
    fn late_and_repeated_ones_are_ignored() {
        let (mut leader, mut follower) = linked();
        follower.activate(B);
        assert_eq!(leader.handle_resume(B, 2), ANSWER);
        assert_eq!(leader.handle_resume(B, 2), Verdict::Ignore);
        assert_eq!(leader.handle_resume(A, 1), Verdict::Ignore);
        assert_eq!(follower.handle_resume(B, 2), ADOPT);
        assert_eq!(follower.handle_resume(B, 2), Verdict::Ignore);
    }

    #[test]
    fn a_lost_link_is_nobodys() {
        let (mut leader, mut follower) = linked();
        assert!(!leader.handle_lost(B));
        assert!(leader.handle_lost(A));
        assert_eq!((leader.sending(), leader.current()), (None, None));
        // The peer has not noticed, and adopts.
        assert_eq!(leader.activate(B), 2);
        assert!(leader.is_asked());
        assert_eq!(follower.handle_resume(B, 2), ANSWER);
        // The answer is lost with the link; the next epoch goes on from there.
        assert!(leader.handle_lost(B));
        assert_eq!(leader.handle_resume(B, 2), Verdict::Exceed, "nobody asked any more");
        assert!(follower.handle_lost(B));
        assert_eq!(follower.activate(A), 3);
        assert_eq!(leader.handle_resume(A, 3), ANSWER);
    }

    #[test]
    fn activations_that_were_lost_do_not_keep_the_two_apart() {
        let (mut leader, mut follower) = linked();
        for link in [B, LinkId(3), LinkId(4)] {
            follower.activate(link);
            assert!(follower.handle_lost(link));
        }
        assert!(leader.handle_lost(A));
        let link = LinkId(5);
        assert_eq!(leader.activate(link), 2);
        assert_eq!(follower.handle_resume(link, 2), Verdict::Exceed, "it is in epoch 4");
        assert_eq!(follower.activate(link), 5);
        assert_eq!(leader.handle_resume(link, 5), ANSWER);
        assert_eq!(follower.handle_resume(link, 5), ADOPT);
        assert_eq!((leader.sending(), follower.sending()), (Some(link), Some(link)));
    }
}
