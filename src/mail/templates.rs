//! How letters are worded: one text and one HTML file for each kind and language, built in, and
//! overridden by the files of a folder.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The longest file, in bytes.
const MAX_FILE: usize = 256 * 1024;

macro_rules! built_in {
    ($($name:literal in $folder:literal),* $(,)?) => {
        &[$(
            ($name, "en", built_in!(@file $folder, $name, "en")),
            ($name, "fr", built_in!(@file $folder, $name, "fr")),
        )*]
    };
    (@file $folder:literal, $name:literal, $language:literal) => {
        (
            include_str!(concat!("../", $folder, "/", $name, ".", $language, ".txt")),
            include_str!(concat!("../", $folder, "/", $name, ".", $language, ".html")),
        )
    };
}

type BuiltIn = (&'static str, &'static str, (&'static str, &'static str));

/// The folder of each is that of the feature that sends it.
const BUILT_IN: &[BuiltIn] = built_in! {
    "invitation" in "invitations/mails",
    "reminder" in "invitations/mails",
    "request" in "invitations/mails",
    "test" in "mails/templates",
    "password_reset" in "recovery/mails",
    "email_change" in "recovery/mails",
    "email_changed" in "recovery/mails",
};

/// The files of a kind in a language.
#[derive(Debug, Clone)]
pub struct Wording {
    /// The first line is the subject.
    pub text: String,
    pub html: String,
}

/// Why a folder of templates is refused.
#[derive(Debug, thiserror::Error)]
pub enum TemplatesError {
    #[error("the mail templates in `{}` cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "`{}` is no mail template; expected names such as `invitation.fr.html`, of {known}, in `en` \
         or `fr`, ending in `txt` or `html`",
        .path.display()
    )]
    Unknown { path: PathBuf, known: String },
    #[error("the mail template `{}` is longer than {MAX_FILE} bytes or not UTF-8", .path.display())]
    Unfit { path: PathBuf },
    #[error("the mail template `{name}.{language}` does not work: {reason}")]
    Broken { name: String, language: String, reason: String },
}

pub struct Templates(BTreeMap<(&'static str, &'static str), Wording>);

impl Templates {
    /// The built-in ones, overridden by the files of the folder.
    ///
    /// # Errors
    /// When a file cannot be read or belongs to no letter.
    pub fn read(folder: Option<&Path>) -> Result<Self, TemplatesError> {
        let mut all: BTreeMap<_, _> = BUILT_IN
            .iter()
            .map(|(name, language, (text, html))| {
                let wording = Wording { text: (*text).to_owned(), html: (*html).to_owned() };
                ((*name, *language), wording)
            })
            .collect();
        let Some(folder) = folder else { return Ok(Self(all)) };
        let unreadable = |source| TemplatesError::Read { path: folder.to_path_buf(), source };
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Kubernetes keeps its own files and folders beside those it mounts.
            if file.starts_with('.') {
                continue;
            }
            let mut parts = file.split('.');
            let (name, language, kind) = (parts.next(), parts.next(), parts.next());
            let known = all.iter_mut().find(|((n, l), _)| (Some(*n), Some(*l)) == (name, language));
            match (known, kind, parts.next()) {
                (Some((_, wording)), Some("txt"), None) => wording.text = contents(&path)?,
                (Some((_, wording)), Some("html"), None) => wording.html = contents(&path)?,
                _ => {
                    let mut known: Vec<&str> = BUILT_IN.iter().map(|(name, ..)| *name).collect();
                    known.dedup();
                    return Err(TemplatesError::Unknown { known: known.join(", "), path });
                }
            }
        }
        Ok(Self(all))
    }

    /// How letters of this kind are worded; English where there is no such language.
    #[must_use]
    pub fn get(&self, name: &str, language: &str) -> Option<&Wording> {
        let find = |language: &str| {
            self.0.iter().find(|((n, l), _)| *n == name && *l == language).map(|(_, w)| w)
        };
        find(language).or_else(|| find("en"))
    }
}

fn contents(path: &Path) -> Result<String, TemplatesError> {
    let bytes = fs::read(path)
        .map_err(|source| TemplatesError::Read { path: path.to_path_buf(), source })?;
    let unfit = || TemplatesError::Unfit { path: path.to_path_buf() };
    if bytes.len() > MAX_FILE {
        return Err(unfit());
    }
    String::from_utf8(bytes).map_err(|_| unfit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("rolecall-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in files {
            fs::write(folder.join(file), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_overrides_single_files() {
        let folder =
            folder("templates", &[("invitation.fr.txt", "Bonjour\n{{ link }}"), (".data", "x")]);
        let templates = Templates::read(Some(&folder)).unwrap();
        assert!(templates.get("invitation", "fr").unwrap().text.starts_with("Bonjour"));
        assert!(templates.get("invitation", "fr").unwrap().html.contains("<html"));
        assert!(templates.get("invitation", "en").unwrap().text.contains("{{ link }}"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_no_letter_uses_is_refused() {
        for name in ["invitaton.fr.txt", "invitation.de.txt", "invitation.fr.txt.bak", "notes"] {
            let folder = folder("unknown", &[(name, "x")]);
            let refused = Templates::read(Some(&folder)).err().unwrap();
            assert!(refused.to_string().contains("invitation.fr.html"), "{name}: {refused}");
            fs::remove_dir_all(folder).unwrap();
        }
    }
}
