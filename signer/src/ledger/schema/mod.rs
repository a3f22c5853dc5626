//! What is in the databases.

pub(super) mod postgres;
pub(super) mod sqlite;
