//! The queue under two model checkers. Each compiles `queue.rs` and the tests in `scenarios.rs` once more,
//! with locks, atomics and threads of its own.

mod under_loom;
mod under_shuttle;
