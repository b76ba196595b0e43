//! One binary, a file per feature: a real server, a fresh database, a real client.
#![cfg(test)]

mod accounts;
mod audit;
mod catalogue;
mod checks;
mod connections;
mod crash;
mod decision;
mod durability;
mod escalation;
mod explain;
mod gate;
mod groups;
mod invitations;
mod keys;
mod leaving;
mod list;
mod mails;
mod memory;
mod pages;
mod people;
mod permission_lists;
mod postgres;
mod races;
mod recovery;
mod replicas;
mod roles;
mod seats;
mod sessions;
mod storms;
mod structure;
mod tenants;
mod watch;
mod world;
mod writes;
