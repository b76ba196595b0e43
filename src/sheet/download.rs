//! Files that are written while they are read: part by part, for readers who keep up.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    app::App,
    error::{Error, Result},
    ids::Revision,
};

/// How many files are written at the same time: each may hold a connection.
static PLACES: Semaphore = Semaphore::const_new(3);
/// How long a part waits for its reader; a transaction that waits longer is ended by the database.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a whole file may take.
const LONGEST: Duration = Duration::from_secs(600);
/// How many parts wait for the reader.
const BUFFER: usize = 2;

const TOO_SLOW: Error = Error::Exhausted {
    reason: "READER_TOO_SLOW",
    message: "the file was not read in time; start again and read faster",
    retry_after: Duration::from_secs(1),
};

#[derive(Debug)]
pub struct Part {
    pub chunk: Vec<u8>,
    pub revision: Revision,
}

/// Where the parts of a file go.
pub struct Download(mpsc::Sender<Result<Part>>);

impl Download {
    /// Waits until there is room for the part.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the reader does not keep up.
    pub async fn send(&self, part: Part) -> Result<()> {
        timeout(PATIENCE, self.0.send(Ok(part))).await.map_err(|_| TOO_SLOW)?.map_err(|_| TOO_SLOW)
    }
}

/// Starts to write a file. It ends early, with the reason, when `write` fails or the server stops.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` when several are being written already.
pub fn download<W>(
    app: &App,
    write: impl FnOnce(Download) -> W,
) -> Result<ReceiverStream<Result<Part>>>
where
    W: Future<Output = Result<()>> + Send + 'static,
{
    let place = PLACES.try_acquire().map_err(|_| Error::Exhausted {
        reason: "TOO_MANY_EXPORTS",
        message: "several files are being written already; wait for one of them to end",
        retry_after: Duration::from_secs(5),
    })?;
    let (out, parts) = mpsc::channel(BUFFER);
    let writing = write(Download(out.clone()));
    let mut stop = app.stopping.clone();
    tokio::spawn(async move {
        let _place = place;
        let outcome = tokio::select! {
            outcome = writing => outcome,
            _ = stop.wait_for(|stop| *stop) => Err(Error::STOPPING),
            () = tokio::time::sleep(LONGEST) => Err(TOO_SLOW),
            () = out.closed() => return,
        };
        if let Err(error) = outcome {
            let _ = timeout(PATIENCE, out.send(Err(error))).await;
        }
    });
    Ok(ReceiverStream::new(parts))
}
