//! Randomness from the operating system: the one place that asks.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Makes a random generator seeded by the operating system.
pub fn generator() -> StdRng {
    rand::make_rng()
}

/// Makes a generator that gives the same numbers each time, for tests and simulations.
pub fn repeatable(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
