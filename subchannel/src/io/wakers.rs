//! Who waits for what, and who is woken.

use std::{task::Waker, time::Instant};

use crate::mux::Mux;

/// The wakers of one subchannel. There is one of these for each subchannel, and most of them only ever have a
/// reader, so that the rest is allocated when a writer waits.
#[derive(Debug, Default)]
pub(super) struct StreamWakers {
    pub(super) read: Option<Waker>,
    writing: Option<Box<WriteWakers>>,
}

#[derive(Debug, Default)]
pub(super) struct WriteWakers {
    pub(super) write: Option<Waker>,
    /// Waits for the answer to OPEN, or for an acknowledgement.
    pub(super) acknowledged: Option<Waker>,
}

impl StreamWakers {
    /// Those of the writing half, if it ever waited.
    pub(super) fn writing(&mut self) -> Option<&mut WriteWakers> {
        self.writing.as_deref_mut()
    }

    /// A place for one of the writing half's.
    pub(super) fn writing_mut(&mut self) -> &mut WriteWakers {
        self.writing.get_or_insert_default()
    }

    /// The writing half is gone. Gives what it left, to be dropped without the lock.
    pub(super) fn release_writing(&mut self) -> impl Iterator<Item = Waker> + use<> {
        let wakers = self.writing.take().map(|wakers| [wakers.write, wakers.acknowledged]);
        wakers.into_iter().flatten().flatten()
    }
}

/// The wakers of the task that owns the link.
#[derive(Debug, Default)]
pub(super) struct DriverWakers {
    pub(super) transmit: Option<Waker>,
    pub(super) read_allowed: Option<Waker>,
    pub(super) drained: Option<Waker>,
    pub(super) ended: Option<Waker>,
    /// The timeout when the driver found nothing to transmit, which it then knows.
    pub(super) timeout: Option<Instant>,
}

impl DriverWakers {
    /// Moves those that can go on to `wakes`.
    pub(super) fn collect(&mut self, mux: &Mux, wakes: &mut Wakes) {
        if self.transmit.is_some() && (mux.wants_transmit() || self.is_timeout_earlier(mux)) {
            wakes.add(self.transmit.take());
        }
        if self.read_allowed.is_some() && (!mux.read_paused() || mux.ended().is_some()) {
            wakes.add(self.read_allowed.take());
        }
        if self.drained.is_some() && (mux.is_drained() || mux.ended().is_some()) {
            wakes.add(self.drained.take());
        }
    }

    fn is_timeout_earlier(&self, mux: &Mux) -> bool {
        mux.poll_timeout().is_some_and(|timeout| self.timeout.is_none_or(|known| timeout < known))
    }
}

/// Wakers on their way out of the lock, to be woken or dropped there. Mostly there is none, or one: no allocation for that.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Wakes {
    pub(super) fn add(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.first.is_none() => self.first = Some(waker),
            Some(waker) => self.others.push(waker),
            None => {}
        }
    }

    /// Call without the lock: a waker may do anything.
    pub(super) fn wake(self) {
        self.first.into_iter().chain(self.others).for_each(Waker::wake);
    }
}

impl Extend<Waker> for Wakes {
    fn extend<T: IntoIterator<Item = Waker>>(&mut self, wakers: T) {
        wakers.into_iter().for_each(|waker| self.add(Some(waker)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_subchannel_costs_little() {
        let words = size_of::<usize>();
        assert_eq!(size_of::<StreamWakers>(), 3 * words, "there is one for each subchannel");
        assert!(size_of::<crate::io::Subchannel>() <= 6 * words, "and a handle");
    }

    #[test]
    fn what_the_writing_half_leaves_is_given_back() {
        let mut wakers = StreamWakers::default();
        assert!(wakers.writing().is_none());
        wakers.writing_mut().write = Some(Waker::noop().clone());
        wakers.writing_mut().acknowledged = Some(Waker::noop().clone());
        assert_eq!(wakers.release_writing().count(), 2);
        assert!(wakers.writing().is_none());
    }
}
