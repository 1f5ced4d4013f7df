//! The behaviours themselves, one function each, by subject.

pub mod answers;
pub mod basics;
pub mod contention;
pub mod doctor;
pub mod election;
pub mod guard;
pub mod many;
pub mod names;
pub mod orders;
pub mod ownership;
pub mod records;
pub mod reset;
pub mod time;
pub mod tokens;
pub mod waiting;
