//! Roles: named sets of permissions that a tenant gives on its scopes.

pub mod templates;
