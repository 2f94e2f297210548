//! Where each session's draft is, by the session's number.

use std::collections::HashMap;

use ahash::RandomState;

/// Numbers of one page. Sessions that were made together are cleaned up and written again
/// together, so what is looked up next is mostly on the page of the last one, or on the next.
const PAGE_LEN: u64 = 64;
const NOWHERE: u32 = u32::MAX;

type Page = [u32; PAGE_LEN as usize];

/// Places by number. A page costs 256 bytes, so numbers that lie far apart cost that much each.
#[derive(Debug, Default)]
pub(super) struct Places {
    pages: Vec<Page>,
    by_number: HashMap<u64, u32, RandomState>,
    /// The page that was looked at last.
    last: Option<(u64, u32)>,
}

impl Places {
    fn page(&mut self, number: u64) -> Option<u32> {
        match self.last {
            Some((last, page)) if last == number => Some(page),
            _ => {
                let page = *self.by_number.get(&number)?;
                self.last = Some((number, page));
                Some(page)
            }
        }
    }

    /// The place of a number.
    pub(super) fn get(&mut self, sid: u64) -> Option<u32> {
        let page = self.page(sid / PAGE_LEN)?;
        let place = self.pages[page as usize][(sid % PAGE_LEN) as usize];
        (place != NOWHERE).then_some(place)
    }

    /// The place of a number; `next` if it had none, from here on.
    pub(super) fn get_or_insert(&mut self, sid: u64, next: u32) -> u32 {
        let number = sid / PAGE_LEN;
        let page = match self.page(number) {
            Some(page) => page,
            None => {
                let page = self.pages.len() as u32;
                self.pages.push([NOWHERE; PAGE_LEN as usize]);
                self.by_number.insert(number, page);
                self.last = Some((number, page));
                page
            }
        };
        let place = &mut self.pages[page as usize][(sid % PAGE_LEN) as usize];
        if *place == NOWHERE {
            *place = next;
        }
        *place
    }

    /// Takes the place of a number away.
    pub(super) fn remove(&mut self, sid: u64) -> Option<u32> {
        let page = self.page(sid / PAGE_LEN)?;
        let place = &mut self.pages[page as usize][(sid % PAGE_LEN) as usize];
        let was = std::mem::replace(place, NOWHERE);
        (was != NOWHERE).then_some(was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_as_in_a_map_whatever_the_order() {
        let (mut places, mut map) = (Places::default(), HashMap::new());
        let mut number = 1_u64;
        for next in 0..20_000_u32 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let sid = match next % 3 {
                0 => number >> 50,
                1 => number >> 20,
                _ => u64::from(next),
            };
            if number >> 60 == 0 {
                assert_eq!(places.remove(sid), map.remove(&sid));
            } else if number >> 60 < 8 {
                assert_eq!(places.get(sid), map.get(&sid).copied());
            } else {
                assert_eq!(places.get_or_insert(sid, next), *map.entry(sid).or_insert(next));
            }
        }
    }
}
