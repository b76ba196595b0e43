//! The audit log as a file.

use super::{AuditEvent, Filter, sql};
use crate::{
    access::{Claim, permit, renew},
    app::App,
    caller::Call,
    error::Result,
    ids::Revision,
    sheet::{self, Download, Part, Separator},
};

/// Events in one part.
const BATCH: i64 = 500;
/// So that spreadsheets take the file for UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
const COLUMNS: [&str; 14] = [
    "time",
    "revision",
    "n",
    "verb",
    "actor",
    "on_behalf_of",
    "target",
    "reason",
    "source",
    "before",
    "after",
    "personal",
    "hash",
    "id",
];

/// Writes every event that the filter shows, up to the change that was the last one at the start.
///
/// # Errors
/// The refusal of a caller who may not read, or not any more; a reader that does not keep up.
pub async fn events(
    app: App,
    call: Call,
    claim: Claim,
    (filter, separator): (Filter, Separator),
    out: Download,
) -> Result<()> {
    let mut permitted = permit(&app, &call, &claim).await?;
    let revision = permitted.revision();
    let header = sheet::write(separator, [COLUMNS])?;
    out.send(Part { chunk: [MARK, &header].concat(), revision }).await?;
    let mut after = None;
    loop {
        let rows = sql::list(&app.pool, &permitted, &filter, after, BATCH).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some((last.revision, last.n));
        let events = rows.into_iter().filter(|row| row.revision.unsigned_abs() <= revision.number);
        let cells = events.map(|row| AuditEvent::try_from(row).map(|e| cells(e, revision)));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        let cells = cells.iter().map(|row| row.iter().map(String::as_str));
        out.send(Part { chunk: sheet::write(separator, cells)?, revision }).await?;
        permitted = permit(&app, &renew(&app, &call).await?, &claim).await?;
    }
}

fn cells(event: AuditEvent, here: Revision) -> [String; COLUMNS.len()] {
    let map = |map: serde_json::Map<String, serde_json::Value>| match map.is_empty() {
        true => String::new(),
        false => serde_json::Value::Object(map).to_string(),
    };
    let personal = event.personal.into_iter().map(|(field, text)| (field, text.into())).collect();
    [
        event.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        here.at(event.revision).text(),
        event.n.to_string(),
        event.verb,
        event.actor,
        event.on_behalf_of,
        event.target,
        event.reason,
        event.source,
        map(event.before),
        map(event.after),
        map(personal),
        event.hash,
        event.id.to_string(),
    ]
}
