//! The case files, as `cases/README.md` describes them.

use std::{fs, path::Path};

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub case: String,
    #[serde(default)]
    pub tenant: World,
    #[serde(default)]
    pub system: World,
    #[serde(default)]
    pub outsiders: Vec<Outsider>,
    pub questions: Vec<Question>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct World {
    pub status: TenantStatus,
    pub sectors: Vec<String>,
    pub workspaces: Vec<String>,
    pub roles: Vec<Role>,
    pub groups: Vec<Group>,
    pub members: Vec<Member>,
    pub service_accounts: Vec<ServiceAccount>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    #[default]
    Active,
    Pending,
    Suspended,
    Deleted,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    pub key: String,
    pub permissions: Vec<String>,
    #[serde(default)]
    pub includes: Vec<String>,
    #[serde(default = "everywhere")]
    pub reach: String,
}

fn everywhere() -> String {
    "everywhere".to_owned()
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub key: String,
    #[serde(default)]
    pub assignments: Vec<Assignment>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub id: String,
    #[serde(default)]
    pub kind: MemberKind,
    #[serde(default)]
    pub status: MemberStatus,
    #[serde(default)]
    pub account: Account,
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default)]
    pub assignments: Vec<Assignment>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberKind {
    #[default]
    Internal,
    External,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberStatus {
    #[default]
    Active,
    Suspended,
    Removed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Account {
    #[default]
    Active,
    Disabled,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccount {
    pub id: String,
    #[serde(default)]
    pub assignments: Vec<Assignment>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outsider {
    pub id: String,
    #[serde(default)]
    pub account: Account,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    pub role: String,
    #[serde(default)]
    pub scope: String,
    #[serde(default, deserialize_with = "maybe_offset")]
    pub starts: Option<TimeDelta>,
    #[serde(default, deserialize_with = "maybe_offset")]
    pub ends: Option<TimeDelta>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub tenant: Option<String>,
    pub subject: String,
    pub permission: String,
    #[serde(default)]
    pub resource: String,
    #[serde(default, deserialize_with = "offset")]
    pub at: TimeDelta,
    pub expect: Expected,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub allowed: bool,
    pub reason: String,
}

fn offset<'de, D: Deserializer<'de>>(d: D) -> Result<TimeDelta, D::Error> {
    let text = String::deserialize(d)?;
    parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no offset")))
}

fn maybe_offset<'de, D: Deserializer<'de>>(d: D) -> Result<Option<TimeDelta>, D::Error> {
    offset(d).map(Some)
}

fn parse(text: &str) -> Option<TimeDelta> {
    let text = text.strip_prefix('+')?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: i64 = number.parse().ok()?;
    match unit {
        "s" => Some(TimeDelta::seconds(number)),
        "m" => Some(TimeDelta::minutes(number)),
        "h" => Some(TimeDelta::hours(number)),
        "d" => Some(TimeDelta::days(number)),
        _ => None,
    }
}

/// Every file with its cases.
pub fn all() -> Vec<(String, Vec<Case>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() > 5, "the case files are missing");
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let cases = serde_yaml_ng::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, cases)
        })
        .collect()
}
