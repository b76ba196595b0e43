//! A file as large and as untidy as people have them, in every way that spreadsheets save it.

use std::time::Instant;

use super::*;

/// So many people of a French company: accents, quoted separators and line breaks, roles by their key, by
/// what they are called and by none, and lines that end as on Windows.
fn company(people: usize, separator: char) -> String {
    let first = ["Zoé", "François", "Jürgen", "Anaïs", "Noël", "Marie-Ange", "O'Neil", "Søren"];
    let last = ["Lefèvre", "Nuñez", "Groß", "D'Alençon", "Müller", "Ça", "Øst", "Château"];
    let roles = ["employee", "hr", "Comptable", "Secrétaire", "", "IT Support", "EMPLOYEE"];
    let cells = |cells: [&str; 9]| cells.join(&separator.to_string()) + "\r\n";
    let mut file = cells([
        "first_name",
        "last_name",
        "email",
        "role",
        "department",
        "job_title",
        "phone",
        "location",
        "workspace",
    ]);
    for n in 0..people {
        let department = format!("\"Études, R&D; n° {}\"", n % 12);
        file += &cells([
            first[n % first.len()],
            last[n / first.len() % last.len()],
            &format!("Person.{n:04}@Société.example"),
            roles[n % roles.len()],
            &department,
            "\"Chef de \"\"projet\"\"\r\nadjoint\"",
            &format!("+336{n:08}"),
            "Évry",
            if n % 5 == 0 && !roles[n % roles.len()].is_empty() { "paris" } else { "" },
        ]);
    }
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_is_imported_in_every_encoding_and_with_every_separator() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let latin = |text: &str| text.chars().map(|c| u8::try_from(c).unwrap()).collect::<Vec<u8>>();
    let mut told = Vec::new();
    for (encoding, separator) in ["UTF-8", "UTF-8 with BOM", "windows-1252"]
        .into_iter()
        .flat_map(|e| [(e, ','), (e, ';'), (e, '\t')])
    {
        // Other people each time, since those of the time before are invited.
        let round = told.len();
        let text = company(1_000, separator).replace("Person.", &format!("Person.{round}."));
        let bytes = match encoding {
            "UTF-8" => text.into_bytes(),
            "windows-1252" => latin(&text),
            _ => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        };
        let begun = Instant::now();
        let shown = preview(&admin, "acme", &bytes).await.unwrap();
        let previewed = begun.elapsed();
        assert_eq!(errors(&shown), BTreeMap::new(), "{encoding} {separator:?}");
        assert!(actions(&shown).iter().all(|action| *action == Action::Invite));
        let row = &shown.rows[8];
        assert_eq!(
            (row.first_name.as_str(), row.last_name.as_str(), row.role.as_str()),
            ("Zoé", "Nuñez", "hr_manager"),
            "{encoding} {separator:?}"
        );
        let import = shown.import.unwrap();
        assert_eq!(import.totals.as_ref().unwrap().invited, 1_000);
        let before = revision(&world).await;
        let begun = Instant::now();
        let messages = commit(&admin, &import.id).await.unwrap();
        told.push((encoding, separator, previewed, begun.elapsed()));
        let last = messages.last().unwrap();
        assert_eq!((last.done, last.total), (1_000, 1_000));
        assert_eq!(revision(&world).await, before + 1, "one change");
        assert_eq!(mails(&world, round).await, 1_000, "{encoding} {separator:?}");
        assert_eq!(
            commit(&admin, &import.id).await.unwrap().as_slice(),
            std::slice::from_ref(last)
        );
        assert_eq!((revision(&world).await, mails(&world, round).await), (before + 1, 1_000));
    }
    for (encoding, separator, previewed, committed) in told {
        println!("{encoding:>15} {separator:?}: preview {previewed:.1?}, commit {committed:.1?}");
    }
    world.stop().await;
}

/// How many mails were ever queued to the people of a round.
async fn mails(world: &World, round: usize) -> i64 {
    sqlx::query_scalar("select count(*) from mails where recipient ilike $1")
        .bind(format!("person.{round}.%"))
        .fetch_one(&world.server.app.pool)
        .await
        .unwrap()
}
