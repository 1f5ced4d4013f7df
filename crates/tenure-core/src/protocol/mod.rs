//! The protocol as state machines: events and the time in, actions out.
