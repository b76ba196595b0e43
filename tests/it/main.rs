//! One binary, a file per feature: a real server, a fresh database, a real client.
#![cfg(test)]

mod crash;
mod decision;
mod gate;
mod people;
mod postgres;
mod structure;
mod world;
mod writes;
