//! Chance that a seed repeats. SplitMix64.

pub struct Dice(u64);

impl Dice {
    /// Of the same seed, a different one for everybody who throws.
    pub fn new(seed: u64, who: u64) -> Self {
        // Mixed, because neighbours in this generator's own steps would throw the same.
        let (mut one, mut other) = (Self(seed), Self(!who));
        Self(one.next() ^ other.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn millis(&mut self, from: u64, to: u64) -> std::time::Duration {
        std::time::Duration::from_millis(from + self.next() % (to - from))
    }
}
