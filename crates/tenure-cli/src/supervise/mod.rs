//! How `run` and `elect` keep their promise: supervisor → keeper → CMD.
//!
//! The process that the user starts is the [supervisor](supervise). It runs the same command line
//! once more as the [keeper](keep), which holds the lease and starts CMD. Whichever of the two is
//! alive ends everything that was started, proves it, and only then gives the name back; if neither
//! is, CMD dies with the keeper, and the ttl does the rest.
//!
//! ```text
//! supervisor ── page (deadline, latch, ticket) ── keeper ── main thread ── CMD and what it starts
//!      └─────── wire (signals →, ← "look") ─────────┘  └─── lease side ── store
//! ```
//!
//! `rules` decides what is due, `page` holds what both know, `sweep` kills and proves, `family` finds
//! whom, `kernel` has all `unsafe`; `supervisor` and `keeper` are the two loops.
//!
//! **Signals.** TERM, INT, HUP, QUIT, USR1 and USR2 sent to the supervisor reach CMD alone, as they
//! would without tenure; those that the terminal sends reach CMD's process group, as do the TERM of
//! a loss and of [`LeaseSide::stop`]. Signals that the caller ignores stay ignored. The keeper
//! ignores direct ones: a service manager signals all three, and CMD must hear each once.
//!
//! **Exit codes.** CMD's own; 128 + n; 76 if the lease was lost, or the keeper died, while CMD ran,
//! or CMD can't be killed; 70 if the keeper died while there was no work; 126 and 127 if CMD can't
//! be executed or found.

mod clock;
mod cmd;
mod family;
mod keeper;
mod kernel;
mod layout;
mod lease_side;
mod notify;
mod page;
mod release;
mod rules;
mod say;
mod seat;
mod signals;
mod status;
mod supervisor;
mod sweep;
mod terminal;
mod wire;
mod work;

pub(crate) use clock::now as boottime_nanos;
pub(crate) use keeper::keep;
pub(crate) use lease_side::{Event, Granted, LeaseSide, Term};
pub(crate) use page::NotTaken;
pub(crate) use release::RELEASE_COMMAND;
pub(crate) use seat::{Seat, seat};
pub(crate) use status::{INTERNAL, LOST, Status, signalled};
pub(crate) use supervisor::supervise;
pub(crate) use work::{Mode, Work};
