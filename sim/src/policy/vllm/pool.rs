//! Blocks of the key-value cache under prefix caching: who holds them, what they contain, which goes next.
//!
//! A block that nobody holds keeps its content until it is given out again, so a request that comes back, or another
//! with the same beginning, finds it. Free blocks stand in the order in which they will be given out: those never used
//! first, then those freed longest ago; of one request the last block goes before the first, because a beginning
//! without its continuation is still worth something and a continuation without its beginning is not.

use std::collections::VecDeque;

/// What a full block holds, together with all blocks before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A block of a prompt, by the name that was given with the request.
    Prompt(u64),
    /// A block that only this request can have: the number of the request, the block's position.
    Own(u32, u32),
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Block {
    /// Requests that hold it.
    holders: u32,
    /// What it holds, once it is full and known.
    content: Option<Content>,
    /// Which release made it free last; an entry of the queue with another number is out of date.
    freed: u32,
    /// The next block whose content has the same place in the table.
    next: u32,
    /// How many were filled before it was.
    filled: u64,
}

/// All blocks of one cache.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Blocks that were used at least once; those after them are free and empty, so a large cache costs what it is used.
    blocks: Vec<Block>,
    total: u32,
    /// Free blocks of those that were used, in the order in which they go, each with the number of its release. Whoever
    /// takes a free block back leaves its entry here, so that nothing but the ends of the queue is ever touched.
    queue: VecDeque<(u32, u32)>,
    releases: u32,
    free: u32,
    /// First block of each place of a hash table, whose chains stand in the order in which they were filled: equal
    /// content may be there more than once. Its length is a power of two.
    table: Vec<u32>,
    /// Blocks in it.
    known: u32,
    /// Blocks filled so far.
    fills: u64,
}

impl Content {
    /// Its place in a table of this many bits. Multiplying by the golden ratio spreads the names in the upper bits
    /// (Knuth, The Art of Computer Programming, 6.4).
    const fn place(self, bits: u32) -> usize {
        let key = match self {
            Self::Prompt(name) => name.rotate_left(32) ^ 0x5bd1_e995,
            Self::Own(request, block) => (request as u64) << 32 | block as u64,
        };
        let mixed = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (u64::BITS - bits)) as usize
    }
}

/// Places of the smallest table.
const PLACES_MIN: usize = 64;

impl Pool {
    /// A pool of empty blocks.
    pub fn new(blocks: u32) -> Self {
        let table = vec![NONE; PLACES_MIN];
        let (queue, releases) = (VecDeque::new(), 0);
        Self { blocks: Vec::new(), total: blocks, queue, releases, free: blocks, table, known: 0, fills: 0 }
    }

    /// Blocks that nobody holds.
    pub const fn free(&self) -> u32 {
        self.free
    }

    /// A block with this content of a prompt: the one filled first, where there are several. What only one request can
    /// have is not looked up: that request knows where it was, see [`since`](Self::since).
    pub fn find(&self, content: Content) -> Option<u32> {
        self.chain(content).find(|&block| self.blocks[block as usize].content == Some(content))
    }

    /// Whether a block still has this content, and how many were filled before it was.
    pub fn since(&self, block: u32, content: Content) -> Option<u64> {
        let block = &self.blocks[block as usize];
        (block.content == Some(content)).then_some(block.filled)
    }

    /// Whether nobody holds a block.
    pub fn is_free(&self, block: u32) -> bool {
        self.blocks[block as usize].holders == 0
    }

    /// Gives out the next free block; what it held is lost.
    pub fn take(&mut self) -> Option<u32> {
        let unused = self.blocks.len() as u32;
        if unused < self.total {
            self.blocks.push(Block { holders: 1, freed: 0, content: None, next: NONE, filled: 0 });
            self.free -= 1;
            return Some(unused);
        }
        loop {
            let (number, release) = self.queue.pop_front()?;
            let block = &mut self.blocks[number as usize];
            if block.holders > 0 || block.freed != release {
                continue;
            }
            block.holders = 1;
            self.free -= 1;
            if let Some(content @ Content::Prompt(_)) = block.content.take() {
                self.forget(content, number);
            }
            return Some(number);
        }
    }

    /// One more request holds this block.
    pub fn hold(&mut self, block: u32) {
        let block = &mut self.blocks[block as usize];
        self.free -= u32::from(block.holders == 0);
        block.holders += 1;
    }

    /// A request lets go of its blocks, which are given in order of position.
    pub fn release(&mut self, blocks: &[u32]) {
        for &number in blocks.iter().rev() {
            let block = &mut self.blocks[number as usize];
            block.holders -= 1;
            if block.holders == 0 {
                self.releases = self.releases.wrapping_add(1);
                block.freed = self.releases;
                self.queue.push_back((number, self.releases));
                self.free += 1;
            }
        }
        if self.queue.len() > 2 * self.blocks.len() + PLACES_MIN {
            let blocks = &self.blocks;
            self.queue.retain(|&(number, release)| {
                blocks[number as usize].holders == 0 && blocks[number as usize].freed == release
            });
        }
    }

    /// A block that is held is now full of this.
    pub fn fill(&mut self, block: u32, content: Content) {
        let filled = &mut self.blocks[block as usize];
        (filled.content, filled.filled) = (Some(content), self.fills);
        self.fills += 1;
        if matches!(content, Content::Own(..)) {
            return;
        }
        self.known += 1;
        if self.known as usize > self.table.len() {
            self.grow();
        }
        self.chain_up(content, block);
    }

    /// The blocks that share a content's place in the table.
    fn chain(&self, content: Content) -> impl Iterator<Item = u32> + '_ {
        let first = self.table[content.place(self.table.len().trailing_zeros())];
        let some = |block: u32| (block != NONE).then_some(block);
        std::iter::successors(some(first), move |&block| some(self.blocks[block as usize].next))
    }

    /// Puts a block at the end of its chain.
    fn chain_up(&mut self, content: Content, block: u32) {
        self.blocks[block as usize].next = NONE;
        match self.chain(content).last() {
            Some(last) => self.blocks[last as usize].next = block,
            None => {
                let place = content.place(self.table.len().trailing_zeros());
                self.table[place] = block;
            }
        }
    }

    /// Doubles the table. Blocks of equal content share a chain before and after, in the same order.
    fn grow(&mut self) {
        let twice = vec![NONE; self.table.len() * 2];
        for first in std::mem::replace(&mut self.table, twice) {
            let mut block = first;
            while block != NONE {
                let Block { next, content, .. } = self.blocks[block as usize];
                if let Some(content) = content {
                    self.chain_up(content, block);
                }
                block = next;
            }
        }
    }

    fn forget(&mut self, content: Content, block: u32) {
        self.known -= 1;
        let after = self.blocks[block as usize].next;
        match self.chain(content).take_while(|&other| other != block).last() {
            Some(before) => self.blocks[before as usize].next = after,
            None => {
                let place = content.place(self.table.len().trailing_zeros());
                self.table[place] = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same rules over plain lists that are searched from end to end.
    #[derive(Debug)]
    struct Naive {
        free: VecDeque<u32>,
        holders: Vec<u32>,
        /// In order of filling.
        filled: Vec<(Content, u32)>,
    }

    impl Naive {
        fn take(&mut self) -> Option<u32> {
            let block = self.free.pop_front()?;
            self.filled.retain(|&(_, b)| b != block);
            self.holders[block as usize] = 1;
            Some(block)
        }

        fn release(&mut self, block: u32) {
            self.holders[block as usize] -= 1;
            if self.holders[block as usize] == 0 {
                self.free.push_back(block);
            }
        }
    }

    proptest! {
        #[test]
        fn the_pool_does_what_plain_lists_do(steps in prop::collection::vec((0u8..4, 0u32..12), 0..300)) {
            let (mut pool, mut naive) = (Pool::new(9), Naive {
                free: (0..9).collect(), holders: vec![0; 9], filled: Vec::new(),
            });
            // A table that soon grows, and in which chains are long.
            pool.table.truncate(2 << (steps.len() % 2));
            let mut held: Vec<u32> = Vec::new();
            for (what, n) in steps {
                match what {
                    0 => {
                        let block = pool.take();
                        prop_assert_eq!(block, naive.take());
                        held.extend(block);
                    }
                    1 if !held.is_empty() => {
                        let block = held.swap_remove(n as usize % held.len());
                        pool.release(&[block]);
                        naive.release(block);
                    }
                    2 => {
                        let empty = |b: &&u32| naive.filled.iter().all(|&(_, other)| other != **b);
                        if let Some(&block) = held.iter().find(empty) {
                            pool.fill(block, Content::Prompt(u64::from(n % 5)));
                            naive.filled.push((Content::Prompt(u64::from(n % 5)), block));
                        }
                    }
                    _ => {
                        let content = Content::Prompt(u64::from(n % 5));
                        let found = naive.filled.iter().find(|&&(c, _)| c == content).map(|&(_, b)| b);
                        prop_assert_eq!(pool.find(content), found);
                        if let Some(block) = found {
                            pool.hold(block);
                            if naive.holders[block as usize] == 0 {
                                naive.free.retain(|&b| b != block);
                            }
                            naive.holders[block as usize] += 1;
                            held.push(block);
                        }
                    }
                }
                prop_assert_eq!(pool.free() as usize, naive.free.len());
            }
        }
    }

    #[test]
    fn of_one_request_the_last_block_is_given_out_first() {
        let mut pool = Pool::new(3);
        let blocks: Vec<u32> = (0..3).map_while(|_| pool.take()).collect();
        pool.release(&blocks);
        assert_eq!((pool.take(), pool.take(), pool.take(), pool.take()), (Some(2), Some(1), Some(0), None));
    }

    #[test]
    fn a_block_keeps_its_content_until_it_is_given_out_again() {
        let mut pool = Pool::new(1);
        let block = pool.take().expect("a free block");
        pool.fill(block, Content::Own(4, 0));
        pool.release(&[block]);
        assert_eq!((pool.since(block, Content::Own(4, 0)), pool.since(block, Content::Own(4, 1))), (Some(0), None));
        assert_eq!(pool.take(), Some(block));
        assert_eq!(pool.since(block, Content::Own(4, 0)), None);
        pool.fill(block, Content::Prompt(7));
        pool.release(&[block]);
        assert_eq!(pool.find(Content::Prompt(7)), Some(block));
        assert_eq!(pool.take(), Some(block));
        assert_eq!(pool.find(Content::Prompt(7)), None);
    }
}
