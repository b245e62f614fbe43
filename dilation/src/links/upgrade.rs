//! How it goes with direct links that take the place of relayed ones. Some paths let a handshake through and no more: they
//! must not take the place of a link that works again and again.

use std::time::{Duration, Instant};

use super::LinkId;

/// A better link that does not last so long was none.
const PROBATION: Duration = Duration::from_secs(10);
/// The first wait before another better link is taken after such a one. It doubles each time.
const SETBACK_FIRST: Duration = Duration::from_secs(10);
const SETBACK_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Upgrade {
    /// The last such link, as long as it is the active one.
    link: Option<(LinkId, Instant)>,
    /// Those in a row that were no good, and until when no other is taken.
    setbacks: u32,
    barred_until: Option<Instant>,
}

impl Upgrade {
    /// Whether no direct link is to take the place of a relayed one now.
    pub(super) fn is_barred(&self, now: Instant) -> bool {
        self.barred_until.is_some_and(|until| now < until)
    }

    /// This direct link takes the place of a relayed one.
    pub(super) fn begin(&mut self, link: LinkId, now: Instant) {
        self.link = Some((link, now));
    }

    /// `current` is the active link now.
    pub(super) fn follow(&mut self, current: Option<LinkId>, now: Instant) {
        let Some((_, since)) = self.link.take_if(|(link, _)| Some(*link) != current) else { return };
        if now.saturating_duration_since(since) >= PROBATION {
            self.setbacks = 0;
            return;
        }
        let wait = SETBACK_FIRST.saturating_mul(2u32.saturating_pow(self.setbacks)).min(SETBACK_MAX);
        self.setbacks = self.setbacks.saturating_add(1);
        self.barred_until = Some(now + wait);
    }
}
