//! The installation's key, and the tokens that prove themselves by it: sessions and links.
//!
//! A token is `prefix ‖ base64url(key id ‖ claims ‖ MAC(purpose ‖ key id ‖ claims))`, of one exact length
//! per kind. Every kind has its own purpose, so that no token passes for another.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    decision::SessionClaims,
    error::Result,
    ids::{InvitationId, TenantId, UserId},
    random,
};

const MAC_LENGTH: usize = 32;
const SESSION_LENGTH: usize = 16 * 3 + 8 + 4 + 4 + 1;
const LINK_LENGTH: usize = 16 * 2 + 4;
const PROOF_LENGTH: usize = 16 + 4 + 8;
/// More than any token has bytes.
const LONGEST: usize = 128;
const SESSION_PREFIX: &str = "rcs_";
const LINK_PREFIX: &str = "rci_";
const API_KEY_PREFIX: &str = "rck_";

/// The keys of the installation: the first one signs, all of them verify.
pub struct Keys(Vec<(u8, SecretBox<[u8; 32]>)>);

/// What a link in a mail to a person proves.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    prefix: &'static str,
    purpose: &'static str,
    minutes: i64,
}

impl Proof {
    pub const PASSWORD_RESET: Self =
        Self { prefix: "rcp_", purpose: "password-reset", minutes: 10 };
    pub const EMAIL_CHANGE: Self = Self { prefix: "rce_", purpose: "email-change", minutes: 60 };

    /// How long the link works.
    #[must_use]
    pub const fn lifetime(self) -> TimeDelta {
        TimeDelta::minutes(self.minutes)
    }
}

/// Why a text is not a list of keys.
#[derive(Debug, thiserror::Error)]
#[error("expected `id:key[,id:key…]`, id 0 to 255, key 32 bytes in base64url without padding")]
pub struct KeysError;

impl Keys {
    /// Reads `id:base64url[,id:base64url…]`; the first key signs.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &SecretString) -> Result<Self, KeysError> {
        let keys = text.expose_secret().trim().split(',').map(|entry| {
            let (id, key) = entry.split_once(':')?;
            let key: [u8; 32] = BASE64.decode(key).ok()?.try_into().ok()?;
            Some((id.parse().ok()?, SecretBox::new(Box::new(key))))
        });
        let keys: Vec<_> = keys.collect::<Option<_>>().ok_or(KeysError)?;
        if keys.is_empty() { Err(KeysError) } else { Ok(Self(keys)) }
    }

    /// A new key in the form that [`Keys::parse`] reads.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<SecretString> {
        Ok(format!("1:{}", BASE64.encode(random::bytes::<32>()?)).into())
    }

    /// A MAC for comparing what must not be kept, such as the request hash of a call with a password.
    #[must_use]
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> Vec<u8> {
        let Some((_, key)) = self.0.first() else { return Vec::new() };
        mac(key, purpose, parts).finalize().into_bytes().to_vec()
    }

    fn seal(&self, prefix: &str, purpose: &str, claims: &[u8]) -> SecretString {
        let Some((id, key)) = self.0.first() else { return SecretString::default() };
        let mut token = vec![*id];
        token.extend_from_slice(claims);
        let tag = mac(key, purpose, &[&token]).finalize().into_bytes();
        token.extend_from_slice(&tag);
        format!("{prefix}{}", BASE64.encode(token)).into()
    }

    fn open<const N: usize>(&self, prefix: &str, purpose: &str, token: &str) -> Option<[u8; N]> {
        let mut decoded = [0; LONGEST];
        let length = BASE64.decode_slice(token.strip_prefix(prefix)?, &mut decoded).ok()?;
        if length != 1 + N + MAC_LENGTH {
            return None;
        }
        let (signed, tag) = decoded[..length].split_at(1 + N);
        let (_, key) = self.0.iter().find(|(id, _)| *id == signed[0])?;
        mac(key, purpose, &[signed]).verify_slice(tag).ok()?;
        signed[1..].try_into().ok()
    }

    #[must_use]
    pub fn session_token(&self, claims: &SessionClaims) -> SecretString {
        let mut bytes = Vec::with_capacity(SESSION_LENGTH);
        for id in [claims.session.uuid(), claims.user.uuid(), claims.tenant.uuid()] {
            bytes.extend_from_slice(id.as_bytes());
        }
        bytes.extend_from_slice(&claims.expires.timestamp_micros().to_be_bytes());
        bytes.extend_from_slice(&claims.member_epoch.to_be_bytes());
        bytes.extend_from_slice(&claims.account_epoch.to_be_bytes());
        bytes.push(u8::from(claims.by_service));
        self.seal(SESSION_PREFIX, "session", &bytes)
    }

    /// The claims of a genuine session token; whether the session is live is for `decide` to say.
    #[must_use]
    pub fn open_session(&self, token: &str) -> Option<SessionClaims> {
        let bytes: [u8; SESSION_LENGTH] = self.open(SESSION_PREFIX, "session", token)?;
        let id = |at: usize| Uuid::from_slice(&bytes[at..at + 16]).ok();
        let micros = i64::from_be_bytes(bytes[48..56].try_into().ok()?);
        Some(SessionClaims {
            session: id(0)?.into(),
            user: id(16)?.into(),
            tenant: id(32)?.into(),
            expires: DateTime::from_timestamp_micros(micros)?,
            member_epoch: i32::from_be_bytes(bytes[56..60].try_into().ok()?),
            account_epoch: i32::from_be_bytes(bytes[60..64].try_into().ok()?),
            by_service: bytes[64] != 0,
        })
    }

    /// The token of an invitation link: the same for every copy of one generation.
    #[must_use]
    pub fn invitation_token(
        &self,
        tenant: TenantId,
        invitation: InvitationId,
        generation: i32,
    ) -> SecretString {
        let mut bytes = Vec::with_capacity(LINK_LENGTH);
        bytes.extend_from_slice(tenant.uuid().as_bytes());
        bytes.extend_from_slice(invitation.uuid().as_bytes());
        bytes.extend_from_slice(&generation.to_be_bytes());
        self.seal(LINK_PREFIX, "invitation", &bytes)
    }

    /// The token of a link to a person: the same for every copy of one mail.
    #[must_use]
    pub fn proof_token(
        &self,
        proof: Proof,
        user: UserId,
        generation: i32,
        expires: DateTime<Utc>,
    ) -> SecretString {
        let mut bytes = Vec::with_capacity(PROOF_LENGTH);
        bytes.extend_from_slice(user.uuid().as_bytes());
        bytes.extend_from_slice(&generation.to_be_bytes());
        bytes.extend_from_slice(&expires.timestamp_micros().to_be_bytes());
        self.seal(proof.prefix, proof.purpose, &bytes)
    }

    #[must_use]
    pub fn open_proof(&self, proof: Proof, token: &str) -> Option<(UserId, i32, DateTime<Utc>)> {
        let bytes: [u8; PROOF_LENGTH] = self.open(proof.prefix, proof.purpose, token)?;
        let user = Uuid::from_slice(&bytes[..16]).ok()?.into();
        let generation = i32::from_be_bytes(bytes[16..20].try_into().ok()?);
        let micros = i64::from_be_bytes(bytes[20..].try_into().ok()?);
        Some((user, generation, DateTime::from_timestamp_micros(micros)?))
    }

    #[must_use]
    pub fn open_invitation(&self, token: &str) -> Option<(TenantId, InvitationId, i32)> {
        let bytes: [u8; LINK_LENGTH] = self.open(LINK_PREFIX, "invitation", token)?;
        let id = |at: usize| Uuid::from_slice(&bytes[at..at + 16]).ok();
        let generation = i32::from_be_bytes(bytes[32..36].try_into().ok()?);
        Some((id(0)?.into(), id(16)?.into(), generation))
    }
}

fn mac(key: &SecretBox<[u8; 32]>, purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
    // The zeros are what HMAC itself pads a shorter key with.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key.expose_secret());
    let mut mac = Hmac::<Sha256>::new(&block.into());
    // The terminator keeps a purpose from running into what follows.
    mac.update(purpose.as_bytes());
    mac.update(&[0]);
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// A new API key: 256 random bits, shown once.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn new_api_key() -> Result<SecretString> {
    Ok(format!("{API_KEY_PREFIX}{}", BASE64.encode(random::bytes::<32>()?)).into())
}

#[must_use]
pub fn is_api_key(text: &str) -> bool {
    text.starts_with(API_KEY_PREFIX)
}

#[must_use]
pub fn is_session_token(text: &str) -> bool {
    text.starts_with(SESSION_PREFIX)
}

/// What is kept of an API key, and how it is found again.
#[must_use]
pub fn hash_api_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::parse(&Keys::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_link_opens_only_whole_unchanged_and_under_its_own_key() {
        let keys = keys();
        let (tenant, invitation) = (Uuid::from_u128(1).into(), Uuid::from_u128(2).into());
        let token = keys.invitation_token(tenant, invitation, 3);
        let token = token.expose_secret();
        assert_eq!(keys.open_invitation(token), Some((tenant, invitation, 3)));
        for at in 4..token.len() {
            let mut other = token.as_bytes().to_vec();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys.open_invitation(std::str::from_utf8(&other).unwrap()), None, "{at}");
            assert_eq!(keys.open_invitation(&token[..at]), None);
        }
        assert_eq!(keys.open_session(&token.replace("rci_", "rcs_")), None);
        assert_eq!(self::keys().open_invitation(token), None);
    }
}
