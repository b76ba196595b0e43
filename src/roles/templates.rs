//! The roles that ship with the product, as data: those of every tenant and of the installation,
//! and the sets installed by choice of sector. Owns the files in `templates/`; touches no tenant.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::decision::Reach;

pub use crate::catalogue::Modules;

/// A text in the languages we ship.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Localized {
    pub en: String,
    pub fr: String,
}

impl Localized {
    /// English stands in for a language that we do not ship.
    #[must_use]
    pub fn in_language(&self, language: &str) -> &str {
        if language == "fr" { &self.fr } else { &self.en }
    }
}

/// A role as shipped, before a tenant makes it its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    pub key: String,
    /// Other words that people write for it: `hr` for `hr_manager`. Lowercase, unique in all files.
    #[serde(default)]
    pub aliases: Vec<String>,
    pub names: Localized,
    pub description: Localized,
    pub permissions: Vec<String>,
    #[serde(default)]
    pub includes: Vec<String>,
    #[serde(default = "everywhere")]
    pub reach: Reach,
    /// Roles that its holders may give although they do not hold all of them.
    #[serde(default)]
    pub may_grant: Vec<String>,
    #[serde(default)]
    pub exclusive_set: Option<String>,
    #[serde(default)]
    pub max_duration_days: Option<u16>,
    /// Neither edited nor deleted by the tenant.
    #[serde(default)]
    pub locked: bool,
}

fn everywhere() -> Reach {
    Reach::Everywhere
}

/// What a sector adds to a role that the tenant already has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    #[serde(default)]
    pub exclusive_set: Option<String>,
}

/// The roles and permissions of one kind of organisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sector {
    pub key: String,
    pub names: Localized,
    /// Raised whenever the file changes, so that a tenant can be shown the difference.
    pub version: u32,
    /// Key of a role of this sector, or of a built-in one.
    pub default_role: String,
    pub modules: Modules,
    /// By key of the built-in role.
    #[serde(default)]
    pub builtin: BTreeMap<String, Extension>,
    #[serde(rename = "role")]
    pub roles: Vec<Template>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Builtin {
    version: u32,
    default_role: String,
    modules: Modules,
    tenant: Vec<Template>,
    system: Vec<Template>,
}

#[derive(Debug)]
struct Files {
    builtin: Builtin,
    sectors: Vec<Sector>,
}

const BUILTIN: (&str, &str) = ("builtin", include_str!("templates/builtin.toml"));
const SECTORS: [(&str, &str); 4] = [
    ("business", include_str!("templates/business.toml")),
    ("education", include_str!("templates/education.toml")),
    ("platform", include_str!("templates/platform.toml")),
    ("accounting", include_str!("templates/accounting.toml")),
];

fn parse<T: DeserializeOwned>((name, text): (&str, &str)) -> Result<T, String> {
    toml::from_str(text).map_err(|error| format!("role templates `{name}.toml`: {error}"))
}

fn parse_files() -> Result<Files, String> {
    let sectors = SECTORS.into_iter().map(parse).collect::<Result<_, _>>()?;
    Ok(Files { builtin: parse(BUILTIN)?, sectors })
}

#[expect(clippy::panic, reason = "the texts are part of the program and a unit test parses them")]
static FILES: LazyLock<Files> =
    LazyLock::new(|| parse_files().unwrap_or_else(|error| panic!("{error}")));

/// The sectors, in the order in which they are offered.
#[must_use]
pub fn sectors() -> &'static [Sector] {
    &FILES.sectors
}

#[must_use]
pub fn sector(name: &str) -> Option<&'static Sector> {
    sectors().iter().find(|sector| sector.key == name)
}

/// The roles that exist from the start: in the installation (`system`), or in any other tenant.
#[must_use]
pub fn builtin(system: bool) -> &'static [Template] {
    if system { &FILES.builtin.system } else { &FILES.builtin.tenant }
}

#[must_use]
pub fn builtin_version() -> u32 {
    FILES.builtin.version
}

/// Key of the role that a new tenant, or the installation, gives whoever joins without another.
#[must_use]
pub fn builtin_default_role() -> &'static str {
    &FILES.builtin.default_role
}

/// The permissions of our own module, `iam`, with what each allows.
#[must_use]
pub fn iam_modules() -> &'static Modules {
    &FILES.builtin.modules
}

/// Every module that is shipped: `iam`, and those that the sectors' roles are written in.
#[must_use]
pub fn modules() -> &'static Modules {
    static MODULES: LazyLock<Modules> = LazyLock::new(|| {
        let mut modules = iam_modules().clone();
        for (module, actions) in sectors().iter().flat_map(|sector| &sector.modules) {
            let known = modules.entry(module.clone()).or_default();
            for (action, text) in actions {
                known.entry(action.clone()).or_insert_with(|| text.clone());
            }
        }
        modules
    });
    &MODULES
}

/// The key of the shipped role for which `written` is another word, in any case: `HR` is
/// `hr_manager`.
///
/// A tenant's own roles come first: ask only for what is not a key of theirs, and expect that the
/// tenant may not have installed the role.
#[must_use]
pub fn resolve_alias(written: &str) -> Option<&'static str> {
    let word = written.trim().to_lowercase();
    let shipped = sectors().iter().flat_map(|sector| &sector.roles);
    let mut roles = FILES.builtin.tenant.iter().chain(&FILES.builtin.system).chain(shipped);
    roles.find(|role| role.aliases.contains(&word)).map(|role| role.key.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;
    use crate::decision::{Permission, PermissionSet, check_pattern};

    /// Every shipped role, with the roles and modules that exist beside it.
    struct Shelf {
        name: &'static str,
        roles: &'static [Template],
        modules: Vec<&'static Modules>,
    }

    fn shelves() -> Vec<Shelf> {
        let iam = iam_modules();
        let mut shelves = vec![
            Shelf { name: "builtin", roles: builtin(false), modules: vec![iam] },
            Shelf { name: "system", roles: builtin(true), modules: vec![iam] },
        ];
        shelves.extend(sectors().iter().map(|sector| Shelf {
            name: &sector.key,
            roles: &sector.roles,
            modules: vec![iam, &sector.modules],
        }));
        shelves
    }

    fn catalogue(modules: &[&'static Modules]) -> Vec<String> {
        let words = |(module, actions): (&String, &'static BTreeMap<String, String>)| {
            actions.keys().map(|action| format!("{module}.{action}")).collect::<Vec<_>>()
        };
        modules.iter().flat_map(|modules| modules.iter()).flat_map(words).collect()
    }

    fn role(sector_key: &str, key: &str) -> &'static Template {
        sector(sector_key).unwrap().roles.iter().find(|role| role.key == key).unwrap()
    }

    /// The role with everything it includes.
    fn holds(sector_key: &str, key: &str) -> PermissionSet {
        let mut set = PermissionSet::default();
        let mut seen = HashSet::from([key]);
        let mut pending = vec![role(sector_key, key)];
        while let Some(next) = pending.pop() {
            set.extend(&PermissionSet::of(&next.permissions));
            let fresh = next.includes.iter().filter(|included| seen.insert(included));
            pending.extend(fresh.map(|included| role(sector_key, included)));
        }
        set
    }

    fn allows(sector_key: &str, key: &str, permission: &str) -> bool {
        holds(sector_key, key).matches(Permission::parse(permission).unwrap())
    }

    #[test]
    fn every_file_parses_and_is_called_as_its_sector() {
        let files = parse_files().unwrap();
        for ((name, _), sector) in SECTORS.iter().zip(&files.sectors) {
            assert_eq!(*name, sector.key);
            assert!(sector.version >= 1);
        }
        assert!(files.builtin.version >= 1);
    }

    #[test]
    fn every_role_named_exists_beside_the_one_that_names_it() {
        for shelf in shelves() {
            let keys: HashSet<_> = shelf.roles.iter().map(|role| &role.key).collect();
            assert_eq!(keys.len(), shelf.roles.len(), "two roles of one key in {}", shelf.name);
            for role in shelf.roles {
                for named in role.includes.iter().chain(&role.may_grant) {
                    assert!(keys.contains(named), "{}: {} names {named}", shelf.name, role.key);
                }
            }
        }
        for sector in sectors() {
            let mut choices = sector.roles.iter().chain(builtin(false));
            assert!(choices.any(|role| role.key == sector.default_role), "{}", sector.key);
            for key in sector.builtin.keys() {
                assert!(builtin(false).iter().any(|role| role.key == *key), "{key}");
            }
        }
        for system in [false, true] {
            assert!(builtin(system).iter().any(|role| role.key == builtin_default_role()));
        }
    }

    #[test]
    fn no_role_includes_itself() {
        for shelf in shelves() {
            let mut settled: HashSet<&str> = HashSet::new();
            loop {
                let before = settled.len();
                for role in shelf.roles {
                    if role.includes.iter().all(|key| settled.contains(key.as_str())) {
                        settled.insert(&role.key);
                    }
                }
                if settled.len() == before {
                    break;
                }
            }
            assert_eq!(settled.len(), shelf.roles.len(), "a circle of includes: {}", shelf.name);
        }
    }

    #[test]
    fn every_permission_is_in_the_catalogue_of_its_sector() {
        for shelf in shelves() {
            let catalogue = catalogue(&shelf.modules);
            for word in &catalogue {
                Permission::parse(word).unwrap_or_else(|error| panic!("{word}: {error}"));
            }
            for role in shelf.roles {
                for pattern in &role.permissions {
                    check_pattern(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
                    let set = PermissionSet::of(&[pattern]);
                    let known = |word: &String| set.matches(Permission::parse(word).unwrap());
                    assert!(catalogue.iter().any(known), "{}: {pattern}", role.key);
                }
            }
        }
    }

    #[test]
    fn whatever_an_rpc_asks_for_is_in_the_catalogue() {
        use crate::proto::{RULES, Rule};
        let iam = catalogue(&[iam_modules()]);
        for (path, rule) in RULES {
            let (Rule::Permission { any_of, .. } | Rule::Oneself { or_any_of: any_of, .. }) = rule
            else {
                continue;
            };
            for word in *any_of {
                assert!(iam.iter().any(|known| known == word), "{path} asks for {word}");
            }
        }
    }

    #[test]
    fn every_text_is_there_in_english_and_french() {
        let filled = |text: &Localized| !text.en.trim().is_empty() && !text.fr.trim().is_empty();
        for shelf in shelves() {
            for role in shelf.roles {
                assert!(filled(&role.names) && filled(&role.description), "{}", role.key);
                assert_eq!(role.names.in_language("fr"), role.names.fr);
                assert_eq!(role.names.in_language("nl"), role.names.en);
            }
            let mut texts = shelf.modules.iter().flat_map(|m| m.values()).flat_map(|a| a.values());
            assert!(texts.all(|text| !text.trim().is_empty()), "{}", shelf.name);
        }
        assert!(sectors().iter().all(|sector| filled(&sector.names)));
    }

    #[test]
    fn keys_and_aliases_mean_one_role_whatever_sectors_are_installed() {
        let offered: Vec<_> =
            builtin(false).iter().chain(sectors().iter().flat_map(|s| &s.roles)).collect();
        let mut words = BTreeSet::new();
        for role in offered {
            for word in role.aliases.iter().chain([&role.key]) {
                assert_eq!(*word, word.to_lowercase());
                assert!(words.insert(word), "`{word}` means two roles");
            }
        }
        assert_eq!(resolve_alias(" HR "), Some("hr_manager"));
        assert_eq!(resolve_alias("principal"), Some("dean"));
        assert_eq!(resolve_alias("nobody"), None);
    }

    #[test]
    fn the_roles_that_the_product_documents_name_are_there() {
        let names = |key: &str| -> Vec<&str> {
            sector(key).unwrap().roles.iter().map(|role| role.names.en.as_str()).collect()
        };
        assert_eq!(
            names("business"),
            [
                "Director",
                "HR Manager",
                "Network Admin",
                "IT Support",
                "Accountant",
                "Secretary",
                "Employee",
                "Visitor",
            ]
        );
        assert_eq!(
            names("education"),
            [
                "Dean / Principal",
                "Professor",
                "Teacher",
                "Lecturer",
                "Student Representative",
                "Student",
                "School Admin",
                "Librarian",
                "Lab Technician",
            ]
        );
        for module in [
            "employees",
            "leave",
            "payroll",
            "infrastructure",
            "voip",
            "monitoring",
            "tickets",
            "billing",
            "invoices",
            "reports",
            "calendar",
            "messaging",
            "files",
            "calls",
        ] {
            assert!(sector("business").unwrap().modules.contains_key(module), "{module}");
        }
        assert_eq!(role("business", "visitor").max_duration_days, Some(30));
    }

    #[test]
    fn the_hr_manager_gives_employee_without_being_one_and_never_director() {
        let hr = role("business", "hr_manager");
        assert!(hr.may_grant.iter().any(|key| key == "employee"));
        assert!(!allows("business", "hr_manager", "messaging.use"));
        assert!(allows("business", "hr_manager", "iam.roles.assign"));
        assert!(!hr.may_grant.iter().any(|key| key == "director"));
        assert!(!holds("business", "hr_manager").covers("*"));
    }

    #[test]
    fn a_basic_user_is_one_of_three_and_cannot_do_what_the_platform_forbids() {
        let platform = sector("platform").unwrap();
        let set = Some("environment".to_owned());
        assert_eq!(role("platform", "basic").exclusive_set, set);
        assert_eq!(role("platform", "advanced").exclusive_set, set);
        assert_eq!(platform.builtin["administrator"].exclusive_set, set);
        assert_eq!(platform.default_role, "basic");
        for forbidden in
            ["iam.members.invite.internal", "iam.workspaces.create", "iam.roles.assign"]
        {
            assert!(!allows("platform", "basic", forbidden), "{forbidden}");
            assert!(!allows("platform", "advanced", forbidden), "{forbidden}");
        }
        assert!(!allows("platform", "basic", "partners.create"));
        assert!(allows("platform", "advanced", "partners.create"));
        assert!(allows("platform", "advanced", "invoices.send"));
    }

    #[test]
    fn a_company_client_deposits_and_searches_and_makes_no_entries() {
        let client = holds("accounting", "company_client");
        assert_eq!(client.patterns(), ["documents.search", "documents.upload"]);
        assert!(allows("accounting", "company_collaborator", "entries.create"));
        assert!(allows("accounting", "site_manager", "iam.members.remove.internal"));
        assert!(!allows("accounting", "site_collaborator", "iam.members.remove.internal"));
        assert!(allows("accounting", "site_collaborator", "iam.members.remove.external"));
        assert_eq!(role("accounting", "site_collaborator").reach, Reach::Everywhere);
    }
}
