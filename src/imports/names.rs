//! Which role somebody means: by its key, its name in any language, or a common short form.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use super::columns::{Column, Flaw};
use crate::{
    change::nearest,
    ids::{Key, RoleId},
    roles::templates,
};

/// The roles of a tenant by all that they are called.
pub struct Names {
    ids: BTreeMap<Key, RoleId>,
    words: HashMap<String, BTreeSet<Key>>,
}

impl Names {
    /// Of roles with their names by language.
    #[must_use]
    pub fn new(roles: Vec<(RoleId, Key, BTreeMap<String, String>)>) -> Self {
        let mut words: HashMap<String, BTreeSet<Key>> = HashMap::new();
        let mut ids = BTreeMap::new();
        for (id, key, names) in roles {
            for name in names.values().map(String::as_str).chain([key.as_str()]) {
                words.entry(fold(name)).or_default().insert(key.clone());
            }
            ids.insert(key, id);
        }
        Self { ids, words }
    }

    /// The role that is meant.
    ///
    /// # Errors
    /// When it could be several or none.
    pub fn find(&self, written: &str) -> Result<(&Key, RoleId), Flaw> {
        if let Some((key, id)) = self.ids.get_key_value(written) {
            return Ok((key, *id));
        }
        let word = fold(written);
        let shipped = || {
            let alias =
                templates::resolve_alias(written).or_else(|| templates::resolve_alias(&word));
            self.ids.get_key_value(alias?)
        };
        let found = match self.words.get(&word) {
            Some(keys) if keys.len() > 1 => {
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                let wrong = format!("`{written}` can be `{}`; write its key", keys.join("` or `"));
                return Err(Flaw { suggestions: keys, ..Flaw::new(Column::Role, wrong) });
            }
            Some(keys) => keys.first().and_then(|key| self.ids.get_key_value(key)),
            None => shipped(),
        };
        found.map(|(key, id)| (key, *id)).ok_or_else(|| self.unknown(written, &word))
    }

    fn unknown(&self, written: &str, word: &str) -> Flaw {
        let likely = nearest(word, self.words.keys().map(String::as_str));
        let mut suggestions: Vec<String> = Vec::new();
        for key in likely.iter().flat_map(|word| &self.words[*word]) {
            if !suggestions.iter().any(|known| known == key.as_str()) {
                suggestions.push(key.to_string());
            }
        }
        let remedy = match suggestions.as_slice() {
            [] => "write the key of one of its roles, or make the role first".to_owned(),
            keys => format!("did you mean `{}`?", keys.join("`, `")),
        };
        let wrong = format!("no role `{written}` in this tenant; {remedy}");
        Flaw { suggestions, ..Flaw::new(Column::Role, wrong) }
    }

    /// The key of a role.
    #[must_use]
    pub fn key(&self, wanted: RoleId) -> Option<&Key> {
        self.ids.iter().find(|(_, id)| **id == wanted).map(|(key, _)| key)
    }
}

/// A name without what people leave out when they type it: case, accents, punctuation.
fn fold(name: &str) -> String {
    let plain = name.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase);
    let plain: String = plain.map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let business = templates::sector("business").unwrap();
        let own = ("night_guard".to_owned(), "Guard".to_owned(), "Gardien de nuit".to_owned());
        let twin = ("day_guard".to_owned(), "Guard".to_owned(), "Gardien de jour".to_owned());
        let shipped = business
            .roles
            .iter()
            .map(|role| (role.key.clone(), role.names.en.clone(), role.names.fr.clone()));
        let roles = shipped.chain([own, twin]).zip(1..).map(|((key, en, fr), n)| {
            let names = [("en".to_owned(), en), ("fr".to_owned(), fr)].into();
            (uuid::Uuid::from_u128(n).into(), key.parse().unwrap(), names)
        });
        Names::new(roles.collect())
    }

    #[test]
    fn a_role_is_found_by_all_that_it_is_called() {
        let names = names();
        for written in
            ["hr_manager", "hr", "HR", "rh", "HR Manager", "hr manager", "Responsable RH"]
        {
            assert_eq!(names.find(written).unwrap().0.as_str(), "hr_manager", "{written}");
        }
        for (written, key) in [
            ("Secrétaire", "secretary"),
            ("secretaire", "secretary"),
            ("EMPLOYÉ", "employee"),
            ("Employe\u{301}", "employee"),
            ("directeur", "director"),
            ("gardien de nuit", "night_guard"),
        ] {
            assert_eq!(names.find(written).unwrap().0.as_str(), key, "{written}");
        }
    }

    #[test]
    fn what_is_not_clear_is_refused_with_what_may_have_been_meant() {
        let names = names();
        let flaw = names.find("Guard").unwrap_err();
        assert_eq!(flaw.suggestions, ["day_guard", "night_guard"]);
        let flaw = names.find("emploiee").unwrap_err();
        assert_eq!(flaw.suggestions, ["employee"]);
        assert!(flaw.message.contains("did you mean `employee`?"), "{}", flaw.message);
        assert!(names.find("xyz").unwrap_err().suggestions.is_empty());
        // A short form of a role that the tenant has not installed means nothing here.
        assert!(names.find("principal").is_err());
    }
}
