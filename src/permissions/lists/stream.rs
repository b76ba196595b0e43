//! Everybody who may do something, at one revision: a task holds the facts and computes as fast as they
//! are read, a part at a time, while another sees to it that the caller still may have them.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, Stream, stream};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{Allowed, Wanted, admit};
use crate::{
    access::renew,
    app::App,
    caller::Call,
    decision::{Facts, Reason, Time},
    error::{Error, Result},
    ids::{Revision, SubjectId},
    replica::Place,
};

/// Subjects in one message.
const BATCH: usize = 500;
/// How many messages wait for a reader.
const BUFFER: usize = 2;
/// How long a message waits for its reader.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a stream may hold on to its state, which is memory.
const LONGEST: Duration = Duration::from_secs(300);
/// How often the caller's rights are judged anew when nothing changes: dates pass all the same.
const CHECK: Duration = Duration::from_millis(500);
/// How many streams compute at the same time; others wait their turn.
static TURNS: Semaphore = Semaphore::const_new(2);

const TOO_SLOW: Error = Error::Exhausted {
    reason: "READER_TOO_SLOW",
    message: "the list was not read in time; start again and read faster, or use ListSubjects",
    retry_after: Duration::from_secs(1),
};

/// One message.
#[derive(Debug)]
pub struct Batch {
    pub found: Vec<Allowed>,
    /// Nobody comes after these.
    pub complete: bool,
    pub reason: Option<Reason>,
    pub revision: Revision,
}

/// Starts the stream, on the state of this moment.
///
/// # Errors
/// The refusal of a caller who may not ask.
pub async fn stream(
    app: App,
    call: Call,
    wanted: Wanted,
    place: Place,
) -> Result<impl Stream<Item = Result<Batch>> + Send + 'static> {
    let now = app.clock.now();
    // One look at the list: everything that it needs is in memory then, and in the copy.
    let looked = app
        .replica
        .ask(|facts| Ok(wanted.part(facts, &call, None, 0, now)?.map(|_| Arc::new(facts.clone()))));
    let facts = looked.await??;
    let (out, batches) = mpsc::channel(BUFFER);
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        let _place = place;
        let mut stop = app.stopping.clone();
        let why = tokio::select! {
            listed = list(&facts, &wanted, now, &out) => match listed {
                Ok(()) => return,
                Err(why) => why,
            },
            why = refused(&app, &call, &wanted.tenant) => why,
            _ = stop.wait_for(|stop| *stop) => Error::STOPPING,
            () = sleep(LONGEST) => TOO_SLOW,
            // The reader is gone, and wants to hear nothing.
            () = out.closed() => return,
        };
        let _ = end.send(why);
    });
    // The end overtakes what waits: whoever may no longer see it gets none of it.
    Ok(stream::unfold(Some((batches, ended.fuse())), |state| async {
        let (mut batches, mut ended) = state?;
        tokio::select! {
            biased;
            Ok(why) = &mut ended => Some((Err(why), None)),
            batch = batches.recv() => Some((Ok(batch?), Some((batches, ended)))),
        }
    }))
}

/// Sends the whole list, and last that it is whole.
async fn list(facts: &Facts, wanted: &Wanted, now: Time, out: &mpsc::Sender<Batch>) -> Result<()> {
    let mut after: Option<SubjectId> = None;
    loop {
        let part = {
            let _turn = TURNS.acquire().await.map_err(Error::internal)?;
            let part = wanted.part_of(facts, after, BATCH, now);
            part.map_err(|_| Error::internal("facts that were held are gone"))??
        };
        let batch = Batch {
            found: part.found,
            complete: part.next.is_none(),
            reason: part.reason,
            revision: facts.revision,
        };
        // A reader that is gone ends the whole; see `stream`.
        timeout(PATIENCE, out.send(batch)).await.map_err(|_| TOO_SLOW)?.ok();
        after = part.next;
        if after.is_none() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until the caller may not list any more, and says why.
async fn refused(app: &App, call: &Call, tenant: &str) -> Error {
    let mut applied = app.replica.applied();
    loop {
        if let Err(refusal) = check(app, call, tenant).await {
            return refusal;
        }
        tokio::select! {
            Ok(()) = applied.changed() => {}
            () = sleep(CHECK) => {}
        }
    }
}

async fn check(app: &App, call: &Call, tenant: &str) -> Result<()> {
    let call = renew(app, call).await?;
    let now = app.clock.now();
    app.replica.ask(|facts| Ok(admit(facts, &call, tenant, now)?.map(drop))).await?
}
