//! Sheets: tables as CSV, for people who open them in a spreadsheet. Owns how a file becomes rows of
//! cells and back, within bounds and without cells that a spreadsheet would take for a formula.

mod download;
mod read;

pub use download::{Download, Part, download};
pub use read::{Encoding, Limits, Row, Separator, SheetError, Table, read};

use crate::error::{Error, Result};

/// What spreadsheets take for the start of a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];
/// What separates cells, somewhere: a cell that holds one is two for a spreadsheet that splits there.
const SEPARATORS: [char; 3] = [',', ';', '\t'];
/// Makes a text of what follows.
const GUARD: char = '\'';

/// The cell as no spreadsheet evaluates it. [`unguard`] gives it back.
#[must_use]
pub fn guard(cell: &str) -> String {
    let mut guarded = String::with_capacity(cell.len() + 1);
    let mut starts = true;
    for c in cell.chars() {
        if starts && FORMULA.contains(&c) {
            guarded.push(GUARD);
        }
        starts = SEPARATORS.contains(&c) || starts && is_quote(c);
        guarded.push(c);
    }
    guarded
}

/// The cell without the guards that [`guard`] puts there, and no others.
#[must_use]
pub fn unguard(cell: &str) -> String {
    let mut plain = String::with_capacity(cell.len());
    let (mut starts, mut chars) = (true, cell.chars().peekable());
    while let Some(c) = chars.next() {
        let guards =
            starts && c == GUARD && chars.peek().is_some_and(|next| FORMULA.contains(next));
        if !guards {
            starts = SEPARATORS.contains(&c) || starts && is_quote(c);
            plain.push(c);
        } else if let Some(guarded) = chars.next() {
            starts = SEPARATORS.contains(&guarded);
            plain.push(guarded);
        }
    }
    plain
}

/// Quotes before a formula vanish when the file is read, so they do not keep it from being one.
fn is_quote(c: char) -> bool {
    matches!(c, '"' | GUARD)
}

/// Rows as CSV, every cell quoted and guarded.
///
/// # Errors
/// When there is no memory to write to.
pub fn write<'a, R>(separator: Separator, rows: impl IntoIterator<Item = R>) -> Result<Vec<u8>>
where
    R: IntoIterator<Item = &'a str>,
{
    let mut writer = csv::WriterBuilder::new()
        .delimiter(separator.byte())
        .quote_style(csv::QuoteStyle::Necessary)
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    for row in rows {
        for cell in row {
            writer.write_field(guard(cell)).map_err(Error::internal)?;
        }
        writer.write_record(None::<&[u8]>).map_err(Error::internal)?;
    }
    writer.into_inner().map_err(|error| Error::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_spreadsheet_would_evaluate_is_guarded_and_only_that() {
        for (plain, guarded) in [
            ("=HYPERLINK(\"http://evil\")", "'=HYPERLINK(\"http://evil\")"),
            ("+33612345678", "'+33612345678"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("'=1", "''=1"),
            ("a;=1+1", "a;'=1+1"),
            ("a,\"=1+1", "a,\"'=1+1"),
            ("Jean-Luc", "Jean-Luc"),
            ("O'Brien", "O'Brien"),
            ("'quoted'", "'quoted'"),
            ("R&D, =", "R&D, ="),
        ] {
            assert_eq!(guard(plain), guarded);
            assert_eq!(unguard(guarded), plain);
        }
        // As people write it themselves.
        assert_eq!(unguard("+33612345678"), "+33612345678");
    }

    proptest! {
        #[test]
        fn what_is_guarded_comes_back(cell in "[a'\"=+,;@\t\r-]{0,12}|\\PC{0,40}") {
            let guarded = guard(&cell);
            prop_assert_eq!(unguard(&guarded), cell);
            let mut parts = guarded.split(SEPARATORS);
            let open = |part: &str| part.trim_start_matches(['"']).starts_with(FORMULA);
            prop_assert!(!parts.any(open), "{}", guarded);
        }

        #[test]
        fn what_is_written_is_read_again(
            rows in prop::collection::vec(prop::collection::vec("[a'\"=,;\n@é-]{0,9}", 3), 1..9),
            separator in prop::sample::select(Separator::ALL.to_vec()),
        ) {
            let header = ["one", "two", "three"].as_slice();
            let cells = rows.iter().map(|row| row.iter().map(String::as_str).collect::<Vec<_>>());
            let all = std::iter::once(header.to_vec()).chain(cells);
            let bytes = write(separator, all).unwrap();
            let limits = Limits { rows: 10, columns: 3, row_bytes: 1_000 };
            let table = read(&bytes, &limits).unwrap();
            prop_assert_eq!(table.separator, separator);
            let read: Vec<Vec<String>> = table.rows.into_iter().map(|row| row.cells).collect();
            let blank = |row: &Vec<String>| row.iter().all(|cell| cell.trim().is_empty());
            let lines = |row: &Vec<String>| row.iter().map(|cell| read::tidy(cell)).collect();
            let kept: Vec<Vec<String>> =
                rows.iter().filter(|row| !blank(row)).map(lines).collect();
            prop_assert_eq!(read[1..].to_vec(), kept);
        }
    }
}
