//! One binary, a file per feature: a real server, a fresh database, a real client.
#![cfg(test)]

mod decision;
mod postgres;
