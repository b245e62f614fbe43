//! Where subchannels are kept, and how their numbers lead there.

use std::{
    collections::BTreeMap,
    ops::{Index, IndexMut},
};

use super::stream::Stream;
use crate::id::SubchannelId;

/// Subchannels in one allocation. Blocks instead of one vector: no entry is ever moved, and no room for as many
/// again is held.
const BLOCK: usize = 64;

#[derive(Debug)]
enum Slot {
    Free { next: Option<u32> },
    Used(Stream),
}

/// The subchannels, each at a small index that it keeps.
#[derive(Debug, Default)]
pub(super) struct Slots {
    blocks: Vec<Vec<Slot>>,
    free: Option<u32>,
    len: usize,
}

impl Slots {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Every index is below this.
    pub(super) fn end(&self) -> u32 {
        let slots = self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK + last.len());
        u32::try_from(slots).expect("subchannels are numbered with 32 bits")
    }

    pub(super) fn insert(&mut self, stream: Stream) -> u32 {
        self.len += 1;
        if let Some(index) = self.free {
            let slot = self.slot_mut(index).expect("the list of free slots has slots only");
            let Slot::Free { next } = *slot else { unreachable!("a slot in the list of free slots is free") };
            *slot = Slot::Used(stream);
            self.free = next;
            return index;
        }
        let index = self.end();
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let block = self.blocks.last_mut().expect("there is one now");
        block.push(Slot::Used(stream));
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Stream> {
        let free = self.free;
        let slot = self.slot_mut(index).filter(|slot| matches!(slot, Slot::Used(_)))?;
        let Slot::Used(stream) = std::mem::replace(slot, Slot::Free { next: free }) else { return None };
        self.free = Some(index);
        self.len -= 1;
        Some(stream)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Stream> {
        match self.blocks.get(index as usize / BLOCK)?.get(index as usize % BLOCK)? {
            Slot::Used(stream) => Some(stream),
            Slot::Free { .. } => None,
        }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Stream> {
        match self.slot_mut(index)? {
            Slot::Used(stream) => Some(stream),
            Slot::Free { .. } => None,
        }
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.blocks.get_mut(index as usize / BLOCK)?.get_mut(index as usize % BLOCK)
    }
}

impl Index<u32> for Slots {
    type Output = Stream;

    fn index(&self, index: u32) -> &Stream {
        self.get(index).expect("the index of a subchannel that was not removed")
    }
}

impl IndexMut<u32> for Slots {
    fn index_mut(&mut self, index: u32) -> &mut Stream {
        self.get_mut(index).expect("the index of a subchannel that was not removed")
    }
}

/// Numbers in one page of [`Routes`].
const PAGE: u32 = 64;
const NOWHERE: u32 = u32::MAX;

/// From the number of a subchannel to its slot. Numbers are given in order, so that pages of neighbours are full as
/// long as subchannels live about equally long, and a page without any is given back.
#[derive(Debug)]
pub(super) struct Routes {
    pages: BTreeMap<u32, Box<Page>>,
    /// The route that was asked for last: frames of one subchannel come in runs.
    last: (SubchannelId, u32),
}

#[derive(Debug)]
struct Page {
    slots: [u32; PAGE as usize],
    used: u32,
}

impl Default for Routes {
    fn default() -> Self {
        Routes { pages: BTreeMap::new(), last: (SubchannelId(0), NOWHERE) }
    }
}

impl Routes {
    pub(super) fn insert(&mut self, id: SubchannelId, slot: u32) {
        let (page, at) = place(id);
        let page = self
            .pages
            .entry(page)
            .or_insert_with(|| Box::new(Page { slots: [NOWHERE; PAGE as usize], used: 0 }));
        if std::mem::replace(&mut page.slots[at], slot) == NOWHERE {
            page.used += 1;
        }
        self.last = (id, slot);
    }

    pub(super) fn remove(&mut self, id: SubchannelId) {
        let (number, at) = place(id);
        let Some(page) = self.pages.get_mut(&number) else { return };
        if std::mem::replace(&mut page.slots[at], NOWHERE) != NOWHERE {
            page.used -= 1;
            if page.used == 0 {
                self.pages.remove(&number);
            }
        }
        if self.last.0 == id {
            self.last.1 = NOWHERE;
        }
    }

    pub(super) fn get(&mut self, id: SubchannelId) -> Option<u32> {
        if self.last.0 != id || self.last.1 == NOWHERE {
            let (page, at) = place(id);
            self.last = (id, self.pages.get(&page)?.slots[at]);
        }
        Some(self.last.1).filter(|slot| *slot != NOWHERE)
    }

    pub(super) fn clear(&mut self) {
        *self = Routes::default();
    }
}

/// The page and the place in it. The numbers of one parity are neighbours.
fn place(id: SubchannelId) -> (u32, usize) {
    let index = (id.0 & 1) << 31 | id.0 >> 1;
    (index / PAGE, (index % PAGE) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_lead_to_their_slots_and_pages_are_given_back() {
        let mut routes = Routes::default();
        let ids = [0, 1, 2, 3, 127, 128, 129, u32::MAX - 1, u32::MAX].map(SubchannelId);
        for (slot, id) in (10..).zip(ids) {
            assert_eq!(routes.get(id), None);
            routes.insert(id, slot);
        }
        for (slot, id) in (10..).zip(ids) {
            assert_eq!(routes.get(id), Some(slot));
        }
        for id in ids {
            routes.remove(id);
            assert_eq!(routes.get(id), None, "{id}");
        }
        assert!(routes.pages.is_empty());
    }
}
