//! The protocol as state machines: an event and the time in, actions out.
//!
//! None of them does I/O, reads a clock or draws randomness. The runtime drives them, and so
//! does the simulator: what is checked there is what ships.

pub mod beat;
pub mod claim;
pub mod contend;
pub mod elect;
pub mod hold;
pub mod observe;
pub mod standing;
pub mod store_clock;
