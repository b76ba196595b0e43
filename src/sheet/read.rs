//! Files that people saved with whatever program they have, read within bounds: a hostile one costs no
//! more memory than its own size and the limits.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, ReaderBuilder};
use encoding_rs::WINDOWS_1252;

use super::unguard;

/// How the characters of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Encoding {
    Utf8,
    Utf16,
    Windows1252,
}

impl Encoding {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16 => "UTF-16",
            Self::Windows1252 => "Windows-1252",
        }
    }
}

/// What stands between the cells of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    Comma,
    Semicolon,
    Tab,
}

impl Separator {
    pub const ALL: [Self; 3] = [Self::Comma, Self::Semicolon, Self::Tab];

    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Comma => "comma",
            Self::Semicolon => "semicolon",
            Self::Tab => "tab",
        }
    }
}

/// How much a file may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows, the header among them.
    pub rows: usize,
    pub columns: usize,
    /// In UTF-8.
    pub row_bytes: usize,
}

/// A file taken apart. Rows without anything in them are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub encoding: Encoding,
    pub separator: Separator,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// As spreadsheets count: the first one is 1, and those left out count.
    pub number: u32,
    /// On one line each, trimmed, without guards.
    pub cells: Vec<String>,
}

/// Why a file is no table; the message ends with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SheetError {
    #[error("the file is empty; start from the template")]
    Empty,
    #[error("this is a spreadsheet of its own format; save it as CSV")]
    Workbook,
    #[error("the file is no text, it holds NUL characters; save it as CSV, in UTF-8")]
    NotText,
    #[error("more than {0} rows; divide the file")]
    TooManyRows(usize),
    #[error("row {row} has more than {most} columns; remove those that are too many")]
    TooManyColumns { row: u32, most: usize },
    #[error("row {row} has more than {most} bytes; shorten it, and see that its quotes are closed")]
    TooLong { row: u32, most: usize },
    #[error("in row {0} a quote is opened and not closed; close it, or double it to mean itself")]
    OpenQuote(u32),
}

/// Reads a file.
///
/// # Errors
/// When it is no table, or one beyond the limits.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Table, SheetError> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\xd0\xcf\x11\xe0") {
        return Err(SheetError::Workbook);
    }
    let (encoding, text) = decode(bytes);
    if text.contains('\0') {
        return Err(SheetError::NotText);
    }
    // One form of line break, so that every row ends with its own.
    let text = match text.contains('\r') {
        true => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
        false => text,
    };
    let (separator, text) = separator(&text);
    let rows = rows(text.as_bytes(), separator, limits)?;
    if rows.is_empty() { Err(SheetError::Empty) } else { Ok(Table { encoding, separator, rows }) }
}

fn decode(bytes: &[u8]) -> (Encoding, Cow<'_, str>) {
    if let Some((marked, length)) = encoding_rs::Encoding::for_bom(bytes) {
        let (text, _) = marked.decode_without_bom_handling(&bytes[length..]);
        let utf8 = marked == encoding_rs::UTF_8;
        return (if utf8 { Encoding::Utf8 } else { Encoding::Utf16 }, text);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => (Encoding::Utf8, Cow::Borrowed(text)),
        Err(_) => (Encoding::Windows1252, WINDOWS_1252.decode_without_bom_handling(bytes).0),
    }
}

/// The separator that the file names (`sep=;`, as spreadsheets write it), or the one that its first row
/// has most of; and the rows.
fn separator(text: &str) -> (Separator, &str) {
    for separator in Separator::ALL {
        let named = ["sep=", "SEP="].iter().find_map(|word| {
            let rest = text.strip_prefix(word)?.strip_prefix(char::from(separator.byte()))?;
            rest.strip_prefix('\n').or_else(|| rest.is_empty().then_some(rest))
        });
        if let Some(rest) = named {
            return (separator, rest);
        }
    }
    let mut counts = [0_usize; Separator::ALL.len()];
    let mut quoted = false;
    for byte in text.trim_start_matches('\n').bytes() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            _ if quoted => {}
            byte => {
                for (count, separator) in counts.iter_mut().zip(Separator::ALL) {
                    *count += usize::from(separator.byte() == byte);
                }
            }
        }
    }
    let most = counts.iter().max().copied().unwrap_or_default();
    let at = counts.iter().position(|count| *count == most).unwrap_or_default();
    (Separator::ALL[at], text)
}

fn rows(mut rest: &[u8], separator: Separator, limits: &Limits) -> Result<Vec<Row>, SheetError> {
    let mut reader = ReaderBuilder::new().delimiter(separator.byte()).build();
    let (mut output, mut ends) = (vec![0; limits.row_bytes], vec![0; limits.columns]);
    let (mut rows, mut number) = (Vec::new(), 0);
    loop {
        while let Some(after) = rest.strip_prefix(b"\n") {
            // The reader passes over an empty line in silence; spreadsheets count it.
            (rest, number) = (after, number + 1);
        }
        number += 1;
        let (mut result, read, mut written, mut cells) =
            reader.read_record(rest, &mut output, &mut ends);
        let raw = &rest[..read];
        rest = &rest[read..];
        if matches!(result, ReadRecordResult::InputEmpty) {
            // The last row ends without a line break: nothing more to read says so.
            let (more, _, text, columns) =
                reader.read_record(&[], &mut output[written..], &mut ends[cells..]);
            (result, written, cells) = (more, written + text, cells + columns);
            let open = raw.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
            if open && raw.contains(&b'\n') {
                return Err(SheetError::OpenQuote(number));
            }
        }
        match result {
            ReadRecordResult::Record => {}
            ReadRecordResult::OutputFull => {
                return Err(SheetError::TooLong { row: number, most: limits.row_bytes });
            }
            ReadRecordResult::OutputEndsFull => {
                return Err(SheetError::TooManyColumns { row: number, most: limits.columns });
            }
            ReadRecordResult::InputEmpty | ReadRecordResult::End => return Ok(rows),
        }
        let cells = cells_of(&output[..written], &ends[..cells]);
        if cells.iter().all(String::is_empty) {
            continue;
        }
        if rows.len() == limits.rows {
            return Err(SheetError::TooManyRows(limits.rows - 1));
        }
        rows.push(Row { number, cells });
    }
}

fn cells_of(text: &[u8], ends: &[usize]) -> Vec<String> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let cell = |(start, end): (usize, &usize)| {
        // The separator and the quote are ASCII, so a cell of a text is a text.
        let cell = String::from_utf8_lossy(text.get(start..*end).unwrap_or_default());
        tidy(&unguard(&cell))
    };
    starts.zip(ends).map(cell).collect()
}

/// One line of it: a line break in a cell is a space, as it looks in a narrow column.
pub(super) fn tidy(cell: &str) -> String {
    let line: String =
        cell.chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { rows: 4, columns: 3, row_bytes: 64 };

    fn cells(bytes: &[u8]) -> Vec<(u32, Vec<String>)> {
        let rows = read(bytes, &LIMITS).unwrap().rows;
        rows.into_iter().map(|row| (row.number, row.cells)).collect()
    }

    fn row(number: u32, cells: &[&str]) -> (u32, Vec<String>) {
        (number, cells.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_encoding_and_separator_gives_the_same_cells() {
        let text = "nom,prénom\r\nLefèvre,Zoë\r\n";
        let utf16: Vec<u8> =
            std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let (latin, _, lossy) = WINDOWS_1252.encode(text);
        assert!(!lossy);
        let files = [
            (Encoding::Utf8, text.as_bytes().to_vec()),
            (Encoding::Utf8, [b"\xef\xbb\xbf", text.as_bytes()].concat()),
            (Encoding::Windows1252, latin.into_owned()),
            (Encoding::Utf16, utf16),
        ];
        for (encoding, bytes) in files {
            let table = read(&bytes, &LIMITS).unwrap();
            assert_eq!(table.encoding, encoding);
            assert_eq!(table.rows[1].cells, ["Lefèvre", "Zoë"]);
        }
        for (separator, mark) in
            [(Separator::Comma, ","), (Separator::Semicolon, ";"), (Separator::Tab, "\t")]
        {
            let table = read(text.replace(',', mark).as_bytes(), &LIMITS).unwrap();
            assert_eq!(table.separator, separator);
            assert_eq!(table.rows[1].cells, ["Lefèvre", "Zoë"]);
        }
        assert_eq!(read(b"sep=;\r\na,b;c\n", &LIMITS).unwrap().rows[0].cells, ["a,b", "c"]);
        assert_eq!(read(b"\"a;b;c\",d\n", &LIMITS).unwrap().separator, Separator::Comma);
    }

    #[test]
    fn rows_are_counted_as_spreadsheets_count_them() {
        assert_eq!(
            cells(b"a,b\n\n1,2\r\n,\r\n\r3,\"x\ny\"\n\n4,5"),
            [row(1, &["a", "b"]), row(3, &["1", "2"]), row(6, &["3", "x y"]), row(8, &["4", "5"])]
        );
        assert_eq!(cells(b"a\n\"\"\nb"), [row(1, &["a"]), row(3, &["b"])]);
    }

    #[test]
    fn what_is_no_table_or_too_much_is_refused() {
        let long = format!("a\n{}", "x".repeat(65));
        for (file, error) in [
            (b"".as_slice(), SheetError::Empty),
            (b"\n\n , \n", SheetError::Empty),
            (b"PK\x03\x04...", SheetError::Workbook),
            (b"a\0b", SheetError::NotText),
            (b"a\x00\n\x00", SheetError::NotText),
            (b"1\n2\n3\n4\n5", SheetError::TooManyRows(3)),
            (b"a,b,c,d\n", SheetError::TooManyColumns { row: 1, most: 3 }),
            (b"a\nb\n,,,,,,,,,,", SheetError::TooManyColumns { row: 3, most: 3 }),
            (long.as_bytes(), SheetError::TooLong { row: 2, most: 64 }),
            (b"a\n\"b\nc\nd", SheetError::OpenQuote(2)),
        ] {
            assert_eq!(read(file, &LIMITS), Err(error), "{file:?}");
        }
    }

    #[test]
    fn millions_of_columns_cost_no_more_than_the_file() {
        let bomb = vec![b','; 2 << 20];
        let most = SheetError::TooManyColumns { row: 1, most: 3 };
        assert_eq!(read(&bomb, &LIMITS), Err(most));
        let quotes = vec![b'"'; 2 << 20];
        assert!(read(&quotes, &LIMITS).is_err());
    }
}
