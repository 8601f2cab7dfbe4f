//! Randomness from the operating system: the one place that asks.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Makes a random generator seeded by the operating system.
pub fn generator() -> StdRng {
    rand::make_rng()
}

/// Gives the operating system's randomness itself, for keys; waits until the kernel has gathered
/// enough of it after power-on.
pub fn system() -> ring::rand::SystemRandom {
    ring::rand::SystemRandom::new()
}

/// Makes a generator that gives the same numbers each time, for tests and simulations.
pub fn repeatable(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
