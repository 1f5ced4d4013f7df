//! Each store: its own client's write, and what people would use on it instead.

pub(crate) mod etcd;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod sqlite;
