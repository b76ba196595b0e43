//! Keeps what DESIGN says about the layout true: which file may do what, and who may call whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Every source file, by its path below `src/`, without what only tests see.
fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 50, "the sources are missing");
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let shipped = text.split("#[cfg(test)]").next().unwrap().to_owned();
            (path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), shipped)
        })
        .collect()
}

fn offenders(word: &str, may: impl Fn(&str) -> bool) -> Vec<String> {
    let found = sources().into_iter().filter(|(path, text)| text.contains(word) && !may(path));
    found.map(|(path, _)| path).collect()
}

fn is(path: &str, files: &[&str]) -> bool {
    files.iter().any(|f| path == *f || (f.ends_with('/') && path.starts_with(f)))
}

#[test]
fn generated_types_stay_at_the_edge() {
    let edge = [
        "proto.rs",
        "server.rs",
        "server/",
        "access.rs",
        "access/",
        "caller.rs",
        "change/",
        "change.rs",
    ];
    let may = |path: &str| {
        path.ends_with("/rpc.rs")
            || path.contains("/rpc/")
            || is(path, &edge)
            || is(path, &["client.rs", "dev/demo.rs"])
    };
    assert_eq!(offenders("crate::proto", may), Vec::<String>::new());
    assert_eq!(offenders("proto::{", may), Vec::<String>::new());
    assert_eq!(offenders("proto as pb", may), Vec::<String>::new());
}

#[test]
fn a_status_is_made_in_one_place() {
    for word in
        ["Status::new(", "Status::internal(", "Status::invalid_argument(", "with_error_details("]
    {
        assert_eq!(offenders(word, |path| path == "error.rs"), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn statements_stand_in_few_files() {
    let may = |path: &str| {
        path.ends_with("/sql.rs")
            || is(
                path,
                &["db.rs", "change.rs", "change/", "outbox.rs", "outbox/", "access.rs", "replica/"],
            )
    };
    for word in ["sqlx::query", "sqlx::raw_sql", "query_as!", "query_scalar!"] {
        assert_eq!(offenders(word, may), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn the_environment_is_read_in_one_place() {
    for word in ["env::var", "env::args"] {
        assert_eq!(offenders(word, |path| path == "config.rs"), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn the_decision_engine_knows_nothing_but_ids() {
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("decision/")) {
        for (at, _) in text.match_indices("crate::") {
            let rest = &text[at + "crate::".len()..];
            assert!(rest.starts_with("ids"), "{path} uses crate::{}", &rest[..20.min(rest.len())]);
        }
        for word in ["async ", ".await", "tokio", "Utc::now", "sqlx::query"] {
            assert!(!text.contains(word), "{path} has `{word}`");
        }
    }
}

#[test]
fn each_table_is_written_by_one_file() {
    let mut writers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        for verb in ["insert into ", "update ", "delete from "] {
            for (at, _) in text.match_indices(verb) {
                let rest = &text[at + verb.len()..];
                let name: String =
                    rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let next = rest[name.len()..].trim_start();
                let statement = match verb {
                    "insert into " => next.starts_with('('),
                    "update " => {
                        next.starts_with("set ") || next.contains(" set ") && next.len() < 2
                    }
                    _ => next.starts_with("where") || next.starts_with('"'),
                };
                if statement {
                    writers.entry(name).or_default().insert(path.clone());
                }
            }
        }
    }
    assert!(writers.len() > 10, "only {writers:?}");
    let shared: Vec<_> = writers.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(shared.is_empty(), "{shared:?}");
}

/// Folders that are not features.
const NOT_FEATURES: [&str; 9] =
    ["access", "decision", "ids", "replica", "change", "server", "dev", "mail", "web"];

#[test]
fn features_call_each_other_through_their_mod_and_without_cycles() {
    let sources = sources();
    let features: BTreeSet<&str> = sources
        .keys()
        .filter_map(|path| path.split_once('/').map(|(folder, _)| folder))
        .filter(|folder| !NOT_FEATURES.contains(folder))
        .collect();
    let mut calls: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, text) in &sources {
        let Some((from, _)) = path.split_once('/').filter(|(f, _)| features.contains(f)) else {
            continue;
        };
        for to in features.iter().filter(|to| **to != from) {
            let private = [format!("{to}::sql"), format!("{to}::rpc")];
            assert!(!private.iter().any(|p| text.contains(p.as_str())), "{path} reaches into {to}");
            let used = text.contains(&format!("crate::{to}::"))
                || text.contains(&format!(" {to}::"))
                || text.contains(&format!("({to}::"));
            // Nobody calls an `rpc.rs`, so it stands above every feature and closes no circle.
            if used && !path.ends_with("/rpc.rs") {
                calls.entry(from).or_default().insert(to);
            }
        }
    }
    // Takes away whoever calls nobody that is left, until nobody is.
    let mut left = calls.clone();
    loop {
        let open: BTreeSet<&str> = left.keys().copied().collect();
        let free: Vec<&str> = left
            .iter()
            .filter(|(_, to)| to.iter().all(|t| !open.contains(t)))
            .map(|(from, _)| *from)
            .collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|f| drop(left.remove(f)));
    }
    assert!(left.is_empty(), "cycles among {left:?}");
}

#[test]
fn plumbing_knows_no_feature() {
    let sources = sources();
    let features: BTreeSet<&str> = sources
        .keys()
        .filter_map(|path| path.split_once('/').map(|(folder, _)| folder))
        .filter(|folder| !NOT_FEATURES.contains(folder))
        .collect();
    let plumbing = [
        "access.rs",
        "access/",
        "app.rs",
        "caller.rs",
        "change.rs",
        "change/",
        "clock.rs",
        "db.rs",
    ];
    let plumbing =
        [&plumbing[..], &["error.rs", "ids.rs", "page.rs", "replica/", "secret.rs"]].concat();
    for (path, text) in sources.iter().filter(|(path, _)| is(path, &plumbing)) {
        for feature in &features {
            assert!(!text.contains(&format!("crate::{feature}")), "{path} knows {feature}");
        }
    }
}
