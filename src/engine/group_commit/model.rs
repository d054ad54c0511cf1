//! The queue under two model checkers. Each compiles `queue.rs` and the claims in `scenarios.rs` once more,
//! on locks, atomics and threads of its own.

mod under_loom;
mod under_shuttle;
