//! Rolecall: who belongs here, and what may they do?

pub mod access;
pub mod app;
pub mod assignments;
pub mod caller;
pub mod change;
pub mod clock;
pub mod config;
pub mod db;
pub mod decision;
pub mod dev;
pub mod edit;
pub mod error;
pub mod ids;
pub mod mail;
pub mod memberships;
pub mod page;
pub mod passwords;
pub mod proto;
pub mod random;
pub mod replica;
pub mod roles;
pub mod secret;
pub mod telemetry;
pub mod text;
pub mod users;
pub mod workspaces;
