//! Chance from a seed: the core draws no randomness of its own.

/// A small seeded generator (xoshiro256++ by Blackman and Vigna, <https://prng.di.unimi.it/>).
///
/// The runtime seeds it from the operating system, the simulator from its seed, so that one
/// seed replays one run. It is for jitter and for ids that need only be unique, not secret.
#[derive(Clone, Debug)]
pub struct Chance {
    state: [u64; 4],
}

impl Chance {
    /// From 256 bits that somebody else drew.
    #[must_use]
    pub fn from_state(state: [u64; 4]) -> Self {
        // The all-zero state is the one fixed point of the generator.
        if state == [0; 4] { Self::seeded(0) } else { Self { state } }
    }

    /// From one number, spread by splitmix64.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut spread = seed;
        let state = std::array::from_fn(|_| {
            spread = spread.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = spread;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { state }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let drawn = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }

    /// The next 128 bits.
    pub fn next_u128(&mut self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }

    /// A number below `bound`, or 0 where there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Lemire's multiply-shift; its bias of at most bound/2^64 is nothing to jitter.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `n` draws, on average; never for `n` = 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }

    /// A duration in `low..=high`.
    pub fn between(
        &mut self,
        low: std::time::Duration,
        high: std::time::Duration,
    ) -> std::time::Duration {
        let width = high.saturating_sub(low).as_nanos().min(u128::from(u64::MAX - 1)) as u64;
        low + std::time::Duration::from_nanos(self.below(width + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_seed_draws_one_sequence() {
        let draw = |seed| {
            let mut chance = Chance::seeded(seed);
            (0..4).map(|_| chance.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut chance = Chance::seeded(1);
        let (low, high) = (Duration::from_millis(90), Duration::from_millis(110));
        for _ in 0..10_000 {
            assert!(chance.below(3) < 3);
            assert!((low..=high).contains(&chance.between(low, high)));
        }
        assert_eq!(chance.below(0), 0);
        assert!(!chance.one_in(0));
    }
}
