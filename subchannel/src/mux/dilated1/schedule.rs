//! Who sends next: levels, and in each a round robin.

use std::collections::VecDeque;

/// What each subchannel of a level may send in its turn, in units: nearly 16 KiB, so that four turns with their headers
/// fill a record.
const QUANTUM: i64 = (16 << 10) - 64;
/// Among so many, those included that wait to write, a turn is longer: to fetch what is known of a subchannel into the cache costs the same for a long one.
const CROWD: usize = 64;
const QUANTUM_IN_CROWD: i64 = 128 << 10;
/// Who has no more units than this to send goes before those who have more, or a question would wait for a turn of everybody.
/// After so many of them one of the others has its turn.
pub(super) const BRIEF: u64 = 4 << 10;
const BRIEF_RUN: u8 = 16;
/// The level of a subchannel that nothing was said of.
pub(super) const DEFAULT_PRIORITY: u8 = 3;
/// The last level.
pub(super) const LAST_PRIORITY: u8 = 7;

/// Levels: the control channel's, then one for each priority.
const LEVELS: usize = 9;

/// Slots that have something to send. A slot is in here at most once.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    levels: [Level; LEVELS],
    /// Which levels have something that is ready, and something that is parked.
    ready: u16,
    parked: u16,
}

/// Who may send now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) level: usize,
    pub(super) slot: u32,
    /// What it may send in a turn that begins now, in units.
    pub(super) quantum: i64,
}

#[derive(Debug, Default)]
struct Level {
    /// Those that had little to send when they came, and how many of them were chosen in a run.
    brief: VecDeque<u32>,
    run: u8,
    ready: VecDeque<u32>,
    /// Those that wait for the link's credit.
    parked: VecDeque<u32>,
}

/// The level of the control channel or of a priority.
pub(super) fn level(is_control: bool, priority: u8) -> usize {
    if is_control { 0 } else { usize::from(priority.min(LAST_PRIORITY)) + 1 }
}

impl Schedule {
    pub(super) fn push(&mut self, level: usize, slot: u32) {
        self.levels[level].ready.push_back(slot);
        self.ready |= 1 << level;
    }

    /// It has [little](BRIEF) to send.
    pub(super) fn push_brief(&mut self, level: usize, slot: u32) {
        self.levels[level].brief.push_back(slot);
        self.ready |= 1 << level;
    }

    /// It has not used its turn up.
    pub(super) fn push_front(&mut self, level: usize, slot: u32) {
        self.levels[level].ready.push_front(slot);
        self.ready |= 1 << level;
    }

    /// It can go on when the link has credit.
    pub(super) fn park(&mut self, level: usize, slot: u32) {
        self.levels[level].parked.push_back(slot);
        self.parked |= 1 << level;
    }

    /// The next one. Those that are parked count if there is credit. So many writers `wait` for room to write.
    pub(super) fn pop(&mut self, credit: bool, wait: usize) -> Option<Chosen> {
        let mask = self.ready | if credit { self.parked } else { 0 };
        let level = mask.trailing_zeros() as usize;
        let chosen = self.levels.get_mut(level)?.pop(credit, wait);
        self.update(level);
        chosen.map(|(slot, quantum)| Chosen { level, slot, quantum })
    }

    /// Whether nobody else is ready in this level.
    pub(super) fn is_alone(&self, level: usize) -> bool {
        let level = &self.levels[level];
        level.brief.is_empty() && level.ready.is_empty() && level.parked.is_empty()
    }

    /// Whether [`pop`](Schedule::pop) would give something.
    pub(super) fn has(&self, credit: bool) -> bool {
        self.ready != 0 || credit && self.parked != 0
    }

    /// All may try again: what is sent a second time needs no credit.
    pub(super) fn unpark(&mut self) {
        for level in 0..LEVELS {
            let queues = &mut self.levels[level];
            let parked = std::mem::take(&mut queues.parked);
            if !parked.is_empty() {
                queues.ready.extend(parked);
                self.ready |= 1 << level;
            }
        }
        self.parked = 0;
    }

    /// Moves a slot to another level.
    pub(super) fn relevel(&mut self, slot: u32, from: usize, to: usize) {
        let level = &mut self.levels[from];
        let before = level.ready.len() + level.brief.len();
        level.ready.retain(|other| *other != slot);
        level.brief.retain(|other| *other != slot);
        let was_ready = level.ready.len() + level.brief.len() < before;
        level.parked.retain(|other| *other != slot);
        self.update(from);
        if was_ready { self.push(to, slot) } else { self.park(to, slot) }
    }

    pub(super) fn clear(&mut self) {
        *self = Schedule::default();
    }

    fn update(&mut self, level: usize) {
        let queues = &mut self.levels[level];
        if queues.ready.is_empty() && queues.brief.is_empty() {
            self.ready &= !(1 << level);
            super::release_if_large(&mut queues.ready);
            super::release_if_large(&mut queues.brief);
        }
        if queues.parked.is_empty() {
            self.parked &= !(1 << level);
            super::release_if_large(&mut queues.parked);
        }
    }
}

impl Level {
    /// The next one, and what it may send.
    fn pop(&mut self, credit: bool, wait: usize) -> Option<(u32, i64)> {
        let others = !self.ready.is_empty() || credit && !self.parked.is_empty();
        if (self.run < BRIEF_RUN || !others)
            && let Some(slot) = self.brief.pop_front()
        {
            self.run = self.run.saturating_add(1);
            return Some((slot, QUANTUM));
        }
        self.run = 0;
        let quantum = if self.ready.len() + wait < CROWD { QUANTUM } else { QUANTUM_IN_CROWD };
        let parked = if credit { self.parked.pop_front() } else { None };
        Some((parked.or_else(|| self.ready.pop_front())?, quantum))
    }
}
