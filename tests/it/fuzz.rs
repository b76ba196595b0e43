//! What comes from outside, mangled in every way: files, addresses, ids, tokens, pages, permissions and
//! resources. Nothing panics or hangs, what is read means what was written, and no answer is much larger
//! than the question. `PROPTEST_CASES=10000000 cargo test --release --test it fuzz::` runs for hours.

use proptest::{prelude::*, sample::Index};
use rolecall::{
    decision::{Permission, Resource, SessionClaims, check_pattern, scope_text},
    ids::{
        ApiKeyId, AssignmentId, EventId, GroupId, ImportId, InvitationId, Key, MailId, Revision,
        RoleId, ServiceAccountId, SessionId, SubjectId, TenantId, UserId, WorkspaceId,
    },
    imports,
    page::Page,
    secret::Keys,
    sheet::{self, Limits},
    text::{self, Email},
};
use secrecy::ExposeSecret;
use uuid::Uuid;

use crate::decision::reference::cases;

/// One change of a text of bytes.
#[derive(Debug, Clone)]
enum Edit {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index, usize),
    Swap(Index, Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let place = || any::<Index>();
    // What parsers stumble over, and anything.
    let telling = prop::sample::select(vec![
        b"\"".to_vec(),
        b"\r\n".to_vec(),
        b"\0".to_vec(),
        b",".to_vec(),
        b"@".to_vec(),
        b"/".to_vec(),
        b"'=".to_vec(),
        b".".to_vec(),
        b"*".to_vec(),
        b"\xff\xfe".to_vec(),
        b"\xef\xbb\xbf".to_vec(),
        "\u{202e}".as_bytes().to_vec(),
        "e\u{301}".as_bytes().to_vec(),
        "\u{130}".as_bytes().to_vec(),
        "xn--".as_bytes().to_vec(),
        b"%00".to_vec(),
        b"9999999999999999999999".to_vec(),
    ]);
    let bytes = prop_oneof![telling, prop::collection::vec(any::<u8>(), 1..6)];
    let edit = prop_oneof![
        (place(), 1_u8..=255).prop_map(|(at, bits)| Edit::Flip(at, bits)),
        (place(), bytes).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (place(), place()).prop_map(|(from, to)| Edit::Remove(from, to)),
        (place(), place(), 1_usize..20).prop_map(|(from, to, n)| Edit::Repeat(from, to, n)),
        (place(), place()).prop_map(|(a, b)| Edit::Swap(a, b)),
    ];
    prop::collection::vec(edit, 0..6)
}

fn mangled(seed: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for edit in edits {
        let end = bytes.len() + 1;
        let range = |a: &Index, b: &Index| {
            let (a, b) = (a.index(end), b.index(end));
            a.min(b)..a.max(b)
        };
        match edit {
            Edit::Flip(at, bits) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Edit::Insert(at, new) => {
                let at = at.index(end);
                bytes.splice(at..at, new.iter().copied());
            }
            Edit::Remove(from, to) => drop(bytes.drain(range(from, to))),
            Edit::Repeat(from, to, n) => {
                let part = bytes[range(from, to)].repeat(*n);
                bytes.extend(part);
            }
            Edit::Swap(a, b) if !bytes.is_empty() => {
                let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
                bytes.swap(a, b);
            }
            Edit::Flip(..) | Edit::Swap(..) => {}
        }
        bytes.truncate(1 << 16);
    }
    bytes
}

/// A good text, mangled, as far as it is still a text.
fn texts(seeds: &[&str]) -> impl Strategy<Value = String> {
    let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
    (prop::sample::select(seeds), edits()).prop_map(|(seed, edits)| {
        String::from_utf8_lossy(&mangled(seed.as_bytes(), &edits)).into_owned()
    })
}

fn keys() -> &'static Keys {
    static KEYS: std::sync::OnceLock<Keys> = std::sync::OnceLock::new();
    KEYS.get_or_init(|| Keys::parse(&Keys::generate().unwrap()).unwrap())
}

const FILES: [&str; 4] = [
    "first_name,last_name,email,role,department,job_title,phone,location\nJohn,Doe,john.doe@company.com,\
     employee,Sales,Sales Manager,+14155551234,New York\n",
    "sep=;\r\nemail;role;workspace;until;from;kind\r\na@b.fr;\"HR \"\"x\"\"\";paris;2026-12-31;;external\r\n",
    "email\trole\n'+a@b.fr\t=1\n\n\"x\ny\"\tz",
    "\u{feff}email\n\u{e9}@b.fr\n",
];

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn files_are_read_or_refused(seed in prop::sample::select(FILES.to_vec()), edits in edits()) {
        let bytes = mangled(seed.as_bytes(), &edits);
        let limits = Limits { rows: 50, columns: 12, row_bytes: 4 << 10 };
        if let Ok(table) = sheet::read(&bytes, &limits) {
            let cells = || table.rows.iter().flat_map(|row| &row.cells);
            prop_assert!(table.rows.len() <= 50 && !table.rows.is_empty());
            prop_assert!(cells().map(String::len).sum::<usize>() <= 3 * bytes.len());
            prop_assert!(!cells().any(|cell| cell.contains(['\n', '\r', '\t', '\0'])));
            prop_assert!(table.rows.windows(2).all(|pair| pair[0].number < pair[1].number));
        }
        if let Ok((_, lines)) = imports::read_lines("chunk", &bytes) {
            for line in lines {
                let email = line.email.as_ref();
                prop_assert_eq!(email.is_none(), line.flaws.iter().any(|f| f.column.name() == "email"
                    && f.message.contains("address")));
                prop_assert!(line.flaws.len() <= 13);
                prop_assert!(Resource::parse(&line.scope).is_ok() || !line.flaws.is_empty());
            }
        }
    }

    #[test]
    fn cells_that_are_guarded_come_back(cell in texts(&["'=1", "a;\"'=x", "+33", "R&D, =x"])) {
        prop_assert_eq!(sheet::unguard(&sheet::guard(&cell)), cell);
    }

    #[test]
    fn addresses_are_one_line_and_their_canonical_form_is_stable(
        text in texts(&["maria.smith@company.com", "\u{e9}ric@b\u{fc}cher.example", "a+b@xn--bcher-kva.example"]),
    ) {
        if let Ok(email) = Email::parse("email", &text) {
            prop_assert!(email.as_str().len() <= 254 && email.as_str().matches('@').count() == 1);
            let breaks = |c: char| c.is_control() || c.is_whitespace() || "<>,;:\"()[]\\".contains(c);
            prop_assert!(!email.as_str().contains(breaks), "{:?}", email);
            let again = Email::parse("email", email.canonical()).unwrap();
            prop_assert_eq!(again.canonical(), email.canonical());
            let shown = Email::parse("email", email.as_str()).unwrap();
            prop_assert_eq!(shown, email);
        }
    }

    #[test]
    fn lines_and_phones_hold_nothing_hidden(text in texts(&["Jean-Luc", "+33612345678", " a\nb "])) {
        if let Ok(line) = text::line("f", &text, 100) {
            prop_assert!(line.chars().count() <= 100 && !line.contains(char::is_control));
            prop_assert_eq!(text::line("f", &line, 100).unwrap(), line);
        }
        if let Ok(phone) = text::phone("f", &text) {
            prop_assert!(phone.len() <= 16 && phone.is_ascii());
        }
    }

    #[test]
    fn ids_and_keys_have_one_form(
        prefix in prop::sample::select(vec!["usr_", "svc_", "ten_", "evt_", "imp_", "paris-2"]),
        id in any::<u128>(),
        edits in edits(),
    ) {
        let good = format!("{prefix}{}", Uuid::from_u128(id).simple());
        let text = String::from_utf8_lossy(&mangled(good.as_bytes(), &edits)).into_owned();
        macro_rules! one_form {
            ($($kind:ty),*) => {$(
                if let Ok(id) = text.parse::<$kind>() {
                    prop_assert_eq!(id.to_string(), text.as_str());
                }
            )*};
        }
        one_form!(TenantId, WorkspaceId, UserId, ServiceAccountId, RoleId, GroupId, AssignmentId);
        one_form!(InvitationId, SessionId, ApiKeyId, EventId, MailId, ImportId, SubjectId, Key);
    }

    #[test]
    fn permissions_and_resources_have_one_form(
        permission in texts(&["invoices.create", "iam.members.invite.internal", "files.*", "*"]),
        resource in texts(&["workspaces/paris/folders/42", "folders/\u{e9}:1", ""]),
    ) {
        if Permission::parse(&permission).is_ok() {
            prop_assert!(check_pattern(&permission).is_ok(), "{}", permission);
        }
        if check_pattern(&permission).is_ok() {
            prop_assert!(permission.is_ascii() && !permission.contains(char::is_whitespace));
        }
        if let Ok(found) = Resource::parse(&resource) {
            prop_assert_eq!(scope_text(found.workspace, found.path), resource);
        }
    }

    #[test]
    fn no_token_but_a_genuine_one_opens(
        ids in any::<[u128; 3]>(),
        numbers in any::<(i32, i32, bool)>(),
        seconds in 0_i64..4_000_000_000,
        edits in edits(),
    ) {
        let [session, user, tenant] = ids.map(Uuid::from_u128);
        let claims = SessionClaims {
            session: session.into(),
            user: user.into(),
            tenant: tenant.into(),
            expires: chrono::DateTime::from_timestamp(seconds, 0).unwrap(),
            member_epoch: numbers.0,
            account_epoch: numbers.1,
            by_service: numbers.2,
        };
        let token = keys().session_token(&claims);
        let link = keys().invitation_token(tenant.into(), session.into(), numbers.0);
        for good in [token.expose_secret(), link.expose_secret()] {
            let text = String::from_utf8_lossy(&mangled(good.as_bytes(), &edits)).into_owned();
            if text == good {
                continue;
            }
            prop_assert!(keys().open_session(&text).is_none());
            prop_assert!(keys().open_invitation(&text).is_none());
        }
        prop_assert_eq!(keys().open_session(token.expose_secret()), Some(claims));
        prop_assert!(keys().open_session(link.expose_secret()).is_none());
    }

    #[test]
    fn no_page_but_a_given_one_is_turned_to(
        last in any::<(String, i64, u128)>(),
        filter in any::<String>(),
        size in any::<i32>(),
        edits in edits(),
    ) {
        type Last = (String, i64, Uuid);
        let last: Last = (last.0, last.1, Uuid::from_u128(last.2));
        let binding = ("list", &filter);
        let page = Page::<Last>::read(keys(), &binding, 10, "").unwrap();
        let token = page.token(keys(), &last).unwrap();
        let next = Page::<Last>::read(keys(), &binding, 10, &token).unwrap();
        prop_assert_eq!(next.after.as_ref(), Some(&last));
        let other = String::from_utf8_lossy(&mangled(token.as_bytes(), &edits)).into_owned();
        match Page::<Last>::read(keys(), &binding, size, &other) {
            Ok(page) => {
                prop_assert!(size >= 0 && (1..=500).contains(&page.size()));
                prop_assert!(other == token || other.is_empty());
            }
            Err(_) => prop_assert!(size < 0 || other != token),
        }
        let elsewhere = Page::<Last>::read(keys(), &("other", &filter), 10, &token);
        prop_assert!(elsewhere.is_err());
    }

    #[test]
    fn revisions_have_one_form(
        parts in any::<(u32, u32, u32)>(),
        edits in edits(),
    ) {
        let (installation, epoch, number) = (parts.0, parts.1, u64::from(parts.2));
        let good = Revision { installation, epoch, number }.text();
        let text = String::from_utf8_lossy(&mangled(good.as_bytes(), &edits)).into_owned();
        if let Ok(revision) = text.parse::<Revision>() {
            prop_assert_eq!(revision.text(), text);
        }
    }
}
