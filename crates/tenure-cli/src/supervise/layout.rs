//! The bytes of the page that supervisor and keeper share.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64};

/// The most bytes a hold ticket may have.
pub(super) const TICKET_LIMIT: usize = 8 * 1024;

/// The page as both processes map it. Atomics alone: any bytes are valid.
#[repr(C)]
pub(super) struct Layout {
    pub(super) magic: AtomicU64,
    pub(super) term: AtomicU64,
    pub(super) deadline: AtomicU64,
    pub(super) grace: AtomicU64,
    pub(super) token: AtomicU64,
    pub(super) caller_mask: AtomicU64,
    pub(super) caller_ignored: AtomicU64,
    pub(super) caller_nice: AtomicI32,
    pub(super) caller_group: AtomicI32,
    pub(super) supervisor: AtomicU32,
    pub(super) phase: AtomicU32,
    pub(super) cmd: AtomicU32,
    pub(super) status: AtomicU32,
    pub(super) proven: AtomicU32,
    pub(super) terminated: AtomicU32,
    pub(super) sweeping: AtomicU32,
    pub(super) ready: AtomicU32,
    pub(super) exit_code: AtomicU32,
    /// Which ticket counts (bit 31) and its length; 0 = none.
    pub(super) ticket: AtomicU32,
    pub(super) tickets: [[AtomicU8; TICKET_LIMIT]; 2],
}
