//! Rolecall: who belongs here, and what may they do?
//!
//! A folder is something the product does, a file is something the program needs.
//!
//! - **Deciding**: [`decision`] is pure: facts and a question in, an answer out. [`replica`] keeps the
//!   facts fresh by following the events.
//! - **The gate**: [`access`] authenticates every call and turns what an operation asks for into the
//!   only values that let it read or change; [`caller`] is who calls.
//! - **Writing**: [`change`] is the only way to write what a decision, a list of people or the audit
//!   can show. [`outbox`], [`attempts`], [`refusals`], [`activity`] and the rows of sessions
//!   are bookkeeping.
//! - **Features**: [`tenants`], [`plans`], [`workspaces`], [`roles`], [`groups`], [`assignments`],
//!   [`accounts`], [`users`], [`memberships`], [`erasure`], [`recovery`], [`invitations`],
//!   [`joining`], [`imports`], [`service_accounts`], [`sessions`], [`permissions`], [`catalogue`],
//!   [`audit`], [`security`], [`mails`]:
//!   `mod.rs` operations, `rpc.rs` messages, `sql.rs` queries.
//! - **Pages**: [`web`] is what people see behind the links in mails.
//! - **Composition**: [`server`], [`config`], and [`dev`] for the laptop.
//!
//! Imports point down: `server → web → features → access → change, replica → plumbing → decision, ids`;
//! a feature calls another through its `mod.rs` alone, without cycles.
//!
//! Invariant: a write of what people or decisions see takes `&mut Change`, so it has an event, a
//! revision and an author. Invariant: commit order is revision order, without gaps. Invariant: facts
//! change by events alone. Invariant: whoever is not shown to be allowed is refused.
//!
//! `tests/it/structure.rs` keeps this page true.

pub mod access;
pub mod accounts;
pub mod activity;
pub mod app;
pub mod assignments;
pub mod attempts;
pub mod audit;
pub mod caller;
pub mod catalogue;
pub mod change;
pub mod clock;
pub mod config;
pub mod db;
pub mod decision;
pub mod dev;
pub mod edit;
pub mod erasure;
pub mod error;
pub mod faults;
pub mod framing;
pub mod groups;
pub mod ids;
pub mod imports;
pub mod invitations;
pub mod joining;
pub mod mail;
pub mod mails;
pub mod memberships;
pub mod outbox;
pub mod page;
pub mod passwords;
pub mod permissions;
pub mod plans;
pub mod proto;
pub mod random;
pub mod recovery;
pub mod refusals;
pub mod replica;
pub mod roles;
pub mod secret;
pub mod security;
pub mod server;
pub mod service_accounts;
pub mod sessions;
pub mod sheet;
pub mod telemetry;
pub mod tenants;
pub mod text;
pub mod users;
pub mod web;
pub mod workspaces;
