//! The laptop: a PostgreSQL of our own. Nothing in production relies on this folder.

pub mod postgres;
