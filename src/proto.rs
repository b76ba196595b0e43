//! The generated API: messages, servers and clients of `rolecall.v1`, and who may call each method.
//! Owns the shape of the wire, nothing else: only `rpc.rs` files, `access.rs`, `change.rs` and
//! `server.rs` use it.

use std::time::SystemTime;

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "tonic writes it so"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/rolecall.v1.rs"));
}
pub use generated::*;

include!(concat!(env!("OUT_DIR"), "/rules.rs"));
include!(concat!(env!("OUT_DIR"), "/impls.rs"));

/// The encoded `FileDescriptorSet` of the package and its imports, with options, for reflection.
pub static DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rolecall_descriptor.bin"));

/// Who may call a method; the option `rolecall.v1.access` of the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Anyone, without a credential.
    Public,
    /// Anyone with a valid credential.
    Authenticated,
    /// The person the request concerns, and whoever holds one of these permissions.
    Oneself { or_any_of: &'static [&'static str], on: Place },
    /// Whoever holds one of these permissions; the request decides which.
    Permission { any_of: &'static [&'static str], on: Place },
}

/// Where a permission must be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the tenant in the field `tenant` of the request, or on the part of it that is concerned.
    Tenant,
    /// In the tenant `system`.
    Installation,
    /// On every scope that the request names.
    EachScope,
}

/// The rule of a method, by its path such as `/rolecall.v1.TenantService/GetTenant`.
#[must_use]
pub fn rule(path: &str) -> Option<Rule> {
    let at = RULES.binary_search_by_key(&path, |(path, _)| path).ok()?;
    Some(RULES[at].1)
}

/// A time as answers carry it.
#[must_use]
pub fn timestamp(time: DateTime<Utc>) -> prost_types::Timestamp {
    SystemTime::from(time).into()
}

/// A length of time as answers carry it.
#[must_use]
pub fn duration(duration: std::time::Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or_default()
}

/// A time that a request may carry.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field` for a time outside the years 1 to 9999.
pub fn time(field: &str, time: Option<prost_types::Timestamp>) -> Result<Option<DateTime<Utc>>> {
    time.map(|time| {
        let nanos = u32::try_from(time.nanos).ok();
        nanos
            .filter(|_| (-62_135_596_800..=253_402_300_799).contains(&time.seconds))
            .and_then(|nanos| DateTime::from_timestamp(time.seconds, nanos))
            .ok_or_else(|| Error::invalid(field, "expected a time, such as `2026-12-31T23:59:59Z`"))
    })
    .transpose()
}

/// A request that changes something.
pub trait Mutation: prost::Message + Default {
    /// Same id, same answer; empty when the caller gave none.
    fn request_id(&self) -> &str;
    /// Check only, write nothing.
    fn validate_only(&self) -> bool;
    /// Why, for the audit log; may be empty.
    fn reason(&self) -> &str;
}

/// The response to a mutation.
pub trait Revised: prost::Message + Default {
    /// Names the state after the change.
    fn set_revision(&mut self, revision: String);
}

/// A response that may hold secrets.
pub trait Redact: prost::Message + Default {
    /// Blanks secret fields, so that the answer may be stored; where the message has a
    /// `secret_reason`, says why.
    fn redact(&mut self, why: Withheld);
}

/// Why an answer lacks its secret.
#[derive(Debug, Clone, Copy)]
pub enum Withheld {
    /// The first answer to the request had it.
    Shown,
    /// The call only checked.
    ValidateOnly,
}

impl Withheld {
    #[must_use]
    pub fn reason(self) -> String {
        let reason = match self {
            Self::Shown => "SECRET_ALREADY_SHOWN",
            Self::ValidateOnly => "SECRET_NOT_MADE",
        };
        reason.to_owned()
    }
}

/// What a command's change answers: there is nobody to tell.
impl Revised for () {
    fn set_revision(&mut self, _: String) {}
}

impl Redact for () {
    fn redact(&mut self, _: Withheld) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::DescriptorPool;

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(DESCRIPTOR).unwrap()
    }

    #[test]
    fn every_method_has_a_rule_and_every_rule_a_method() {
        let mut paths: Vec<String> = pool()
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()))
            .collect();
        paths.sort();
        assert!(paths.len() > 60, "only {} methods", paths.len());
        assert_eq!(paths, RULES.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    }

    #[test]
    fn the_served_descriptor_keeps_the_access_option() {
        let pool = pool();
        let access = pool.get_extension_by_name("rolecall.v1.access").unwrap();
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            assert!(method.options().has_extension(&access), "{}", method.full_name());
        }
        assert!(pool.files().all(|file| file.file_descriptor_proto().source_code_info.is_none()));
    }

    #[test]
    fn rules_are_found_by_path() {
        assert_eq!(
            rule("/rolecall.v1.TenantService/CreateTenant"),
            Some(Rule::Permission { any_of: &["iam.tenants.create"], on: Place::Installation })
        );
        assert_eq!(rule("/rolecall.v1.SessionService/SignIn"), Some(Rule::Public));
        assert_eq!(rule("/rolecall.v1.TenantService/createTenant"), None);
    }

    #[test]
    fn secrets_are_neither_printed_nor_kept() {
        let request = SignInRequest {
            email: "a@b.c".into(),
            password: "hunter2".into(),
            ..Default::default()
        };
        let printed = format!("{request:?}");
        assert!(printed.contains("a@b.c") && printed.contains("[redacted]"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");

        let proof = ExistingAccount { password: "hunter2".into() };
        let account = Some(accept_invitation_request::Account::ExistingAccount(proof));
        let request = AcceptInvitationRequest { token: "rci_1".into(), account };
        let printed = format!("{request:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("rci_1"), "{printed}");

        let mut response = CreateApiKeyResponse { secret: "rck_1".into(), ..Default::default() };
        response.redact(Withheld::Shown);
        assert_eq!(
            (response.secret.as_str(), response.secret_reason.as_str()),
            ("", "SECRET_ALREADY_SHOWN")
        );
    }
}
