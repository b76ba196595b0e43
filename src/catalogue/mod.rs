//! The permission catalogue: the words that applications register, for the whole installation, and
//! what a tenant's roles may name of them. A decision needs nothing of it: what a role has, it gives.

mod rpc;
mod sql;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    access::Permit,
    change::{Change, Event, nearest},
    error::{Error, Result, Violation},
};

pub use rpc::{list_permissions, register_permissions};

/// Module → action → what it allows, in English; the permission is `module.action`.
pub type Modules = BTreeMap<String, BTreeMap<String, String>>;

/// The module of our own words, which nobody registers.
const OURS: &str = "iam";
/// The most modules of an installation.
const MAX_MODULES: i64 = 1_000;

/// Which permissions the roles of a tenant can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Words {
    /// Those of a registered module must be registered; other modules are free.
    Checked,
    /// Every one must be known.
    Strict,
    Free,
}

/// What the catalogue says about a permission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// By language.
    pub descriptions: BTreeMap<String, String>,
    /// Registered no longer, but roles have it.
    pub deprecated: bool,
}

/// A module as one application registered it.
#[derive(Debug, Clone, Default)]
pub struct Module {
    pub owner: String,
    pub entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
pub struct Registration {
    pub module: String,
    /// Permission → language → what it allows.
    pub permissions: BTreeMap<String, BTreeMap<String, String>>,
    pub take_over: bool,
}

/// A module after its registration.
#[derive(Debug, Clone)]
pub struct Registered {
    pub module: Module,
    /// Permissions that left the list, and how many roles still name them.
    pub still_used: BTreeMap<String, i64>,
}

/// Replaces the permissions of a module. What left the list stays, deprecated, while roles name it: a
/// role that is written at the same time may be missed, keeps its word all the same, and only the mark
/// is not there.
///
/// # Errors
/// `FAILED_PRECONDITION` for our own module, for that of somebody else, and for one too many;
/// `PERMISSION_DENIED` for taking over without the permission.
pub async fn register(change: &mut Change, new: Registration) -> Result<Registered> {
    if new.module == OURS {
        let message = "module `iam` is Rolecall's own; choose another name";
        return Err(Error::precondition("MODULE_RESERVED", OURS, message));
    }
    if new.take_over {
        change.require("iam.catalogue.transfer", "")?;
    }
    let before = sql::find(change, &new.module).await?;
    let caller = change.call().actor();
    match &before {
        Some(module) if module.owner != caller && !new.take_over => {
            return Err(taken(&new.module, &module.owner));
        }
        None if sql::count_modules(change).await? >= MAX_MODULES => {
            let message = format!("at most {MAX_MODULES} modules; give one up first");
            return Err(Error::precondition("TOO_MANY_MODULES", &new.module, message));
        }
        Some(_) | None => {}
    }
    let before = before.unwrap_or_default();
    let gone: Vec<&String> =
        before.entries.keys().filter(|word| !new.permissions.contains_key(*word)).collect();
    let still_used = sql::count_uses(change, &gone).await?;
    let after = replaced(&before, &new, caller, &still_used);
    let differs = |module: &Module, other: &Module| -> BTreeMap<String, Entry> {
        let other = |word: &String| other.entries.get(word).cloned();
        let entries = module.entries.clone().into_iter();
        entries.filter(|(word, entry)| other(word).as_ref() != Some(entry)).collect()
    };
    let event = Event::new("permissions.registered", &new.module)
        .change("owner", &before.owner, &after.owner)
        .change("permissions", &differs(&before, &after), &differs(&after, &before));
    if event.changes_anything() {
        sql::replace(change, &new.module, &after).await?;
        change.record(event)?;
    }
    Ok(Registered { module: after, still_used })
}

fn taken(module: &str, owner: &str) -> Error {
    let message = format!(
        "module `{module}` was registered by `{owner}`; choose another name, or take it over with \
         `iam.catalogue.transfer`"
    );
    Error::precondition("MODULE_TAKEN", module, message)
}

/// The module as the registration makes it; an empty list gives it up.
fn replaced(
    before: &Module,
    new: &Registration,
    owner: String,
    still_used: &BTreeMap<String, i64>,
) -> Module {
    if new.permissions.is_empty() {
        return Module::default();
    }
    let live = new.permissions.iter().map(|(word, descriptions)| {
        (word.clone(), Entry { descriptions: descriptions.clone(), deprecated: false })
    });
    let deprecated = before.entries.iter().filter(|(word, _)| still_used.contains_key(*word));
    let deprecated =
        deprecated.map(|(word, entry)| (word.clone(), Entry { deprecated: true, ..entry.clone() }));
    Module { owner, entries: live.chain(deprecated).collect() }
}

/// A line of the list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub permission: String,
    pub module: String,
    /// Empty: nobody registered it.
    pub owner: String,
    pub entry: Entry,
}

/// The catalogue by permission: what is registered, and what is `shipped` for modules that nobody
/// registered.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    pool: &sqlx::PgPool,
    permit: &Permit,
    shipped: &Modules,
    module: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<Listed>> {
    let mut rows = sql::list(pool, permit, module, after, limit).await?;
    let names: Vec<&String> = shipped.keys().collect();
    let registered = sql::registered(pool, &names).await?;
    let open = shipped.iter().filter(|(name, _)| {
        !registered.contains(*name) && module.is_none_or(|module| module == name.as_str())
    });
    rows.extend(open.flat_map(|(name, actions)| {
        actions.iter().map(move |(action, text)| Listed {
            permission: format!("{name}.{action}"),
            module: name.clone(),
            owner: String::new(),
            entry: Entry {
                descriptions: [("en".to_owned(), text.clone())].into(),
                deprecated: false,
            },
        })
    }));
    rows.retain(|row| row.permission.as_str() > after);
    rows.sort_by(|a, b| a.permission.cmp(&b.permission));
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(rows)
}

/// Refuses words that the roles of the tenant cannot name; what a role `had` it keeps. Read without a
/// lock on the catalogue: whatever a registration changes meanwhile, what a role has, it keeps.
///
/// # Errors
/// `INVALID_ARGUMENT` naming every unknown word, with the nearest known ones.
pub async fn require_known(
    change: &mut Change,
    words: &[String],
    had: &[impl AsRef<str>],
    shipped: &Modules,
) -> Result<()> {
    let new =
        words.iter().enumerate().filter(|(_, word)| !had.iter().any(|had| had.as_ref() == *word));
    let new: Vec<(usize, &String)> = new.filter(|(_, word)| *word != "*").collect();
    if new.is_empty() {
        return Ok(());
    }
    let rule = sql::words_of_tenant(change).await?;
    let modules: BTreeSet<&str> = new.iter().map(|(_, word)| module_of(word)).collect();
    let registered = sql::live_words(change, &modules).await?;
    let names = match rule {
        Words::Strict => sql::module_names(change).await?,
        Words::Checked | Words::Free => Vec::new(),
    };
    let known = Known { rule, registered, names, shipped };
    let unknown = new.into_iter().filter_map(|(at, word)| {
        let description = known.flaw(word)?;
        Some(Violation { field: format!("permissions[{at}]"), description })
    });
    let unknown: Vec<Violation> = unknown.collect();
    if unknown.is_empty() { Ok(()) } else { Err(Error::Invalid(unknown)) }
}

/// What there is to say about words.
struct Known<'a> {
    rule: Words,
    /// Module → its permissions.
    registered: BTreeMap<String, Vec<String>>,
    /// Every registered module, where an unknown one is refused.
    names: Vec<String>,
    shipped: &'a Modules,
}

impl Known<'_> {
    /// Why a role cannot name the permission or pattern; nothing when it can.
    fn flaw(&self, word: &str) -> Option<String> {
        let module = module_of(word);
        let words = if module == OURS {
            self.shipped(module)?
        } else if self.rule == Words::Free {
            return None;
        } else if let Some(words) = self.registered.get(module) {
            words.clone()
        } else if self.rule == Words::Checked {
            return None;
        } else if let Some(words) = self.shipped(module) {
            words
        } else {
            let names: BTreeSet<&String> = self.names.iter().chain(self.shipped.keys()).collect();
            let near = nearest(module, names.into_iter().map(String::as_str));
            return Some(format!(
                "no application has registered the module `{module}`; {}",
                remedy(&near, "have it registered, or set the tenant's `permission_words`")
            ));
        };
        let matches = |known: &String| match word.strip_suffix('*') {
            Some(prefix) => known.starts_with(prefix),
            None => known == word,
        };
        if words.iter().any(matches) {
            return None;
        }
        let near = nearest(word, words.iter().map(String::as_str));
        Some(format!(
            "the catalogue has no permission `{word}`, or only as a deprecated one; {}",
            remedy(&near, "list it with ListPermissions")
        ))
    }

    fn shipped(&self, module: &str) -> Option<Vec<String>> {
        let actions = self.shipped.get(module)?;
        Some(actions.keys().map(|action| format!("{module}.{action}")).collect())
    }
}

fn remedy(near: &[&str], otherwise: &str) -> String {
    match near {
        [] => otherwise.to_owned(),
        near => format!("did you mean `{}`?", near.join("`, `")),
    }
}

/// The first word.
fn module_of(word: &str) -> &str {
    word.split_once('.').map_or(word, |(module, _)| module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(rule: Words, shipped: &Modules) -> Known<'_> {
        let words = ["invoices.create", "invoices.lines.create"].map(str::to_owned);
        let registered = [("invoices".to_owned(), words.into())].into();
        Known { rule, registered, names: vec!["invoices".to_owned()], shipped }
    }

    fn shipped() -> Modules {
        let actions = |words: &[&str]| {
            words.iter().map(|word| ((*word).to_owned(), "Text".to_owned())).collect()
        };
        [
            ("iam".to_owned(), actions(&["roles.read", "roles.create"])),
            ("files".to_owned(), actions(&["read"])),
            ("invoices".to_owned(), actions(&["send"])),
        ]
        .into()
    }

    #[test]
    fn words_of_registered_modules_and_ours_are_checked_and_others_as_the_tenant_says() {
        let shipped = shipped();
        for (word, checked, strict, free) in [
            ("invoices.create", true, true, true),
            ("invoices.*", true, true, true),
            ("invoices.lines.*", true, true, true),
            ("invoices.craete", false, false, true),
            ("invoices.line.*", false, false, true),
            // The application knows better than what we ship.
            ("invoices.send", false, false, true),
            ("files.read", true, true, true),
            ("files.raed", true, false, true),
            ("own.word", true, false, true),
            ("own.*", true, false, true),
            ("iam.roles.*", true, true, true),
            ("iam.rolls.*", false, false, false),
            ("iam.*", true, true, true),
        ] {
            let ask = |rule| known(rule, &shipped).flaw(word).is_none();
            let asked = (ask(Words::Checked), ask(Words::Strict), ask(Words::Free));
            assert_eq!(asked, (checked, strict, free), "{word}");
        }
    }

    #[test]
    fn a_refusal_names_the_nearest() {
        let shipped = shipped();
        let flaw = |word| known(Words::Strict, &shipped).flaw(word).unwrap();
        assert!(flaw("invoices.craete").contains("did you mean `invoices.create`"));
        assert!(flaw("invocies.create").ends_with("did you mean `invoices`?"));
        assert!(flaw("iam.rolls.read").contains("`iam.roles.read`"));
        assert!(flaw("zzz.create").contains("permission_words"));
    }
}
