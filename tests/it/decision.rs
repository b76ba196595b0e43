//! The decision engine: the cases in process, and property tests against a naive reference.

pub mod cases;
mod in_process;
mod over_grpc;
pub mod reference;
mod worlds;
