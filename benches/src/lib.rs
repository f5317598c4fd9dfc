//! Development-only benchmarks and peer comparisons.
