//! The epochs of this installation: which revisions of earlier ones are part of its history.

use crate::{
    error::{Error, Result},
    ids::Revision,
};

/// In their order.
#[derive(Debug, Clone, Default)]
pub struct Epochs(Vec<Epoch>);

#[derive(Debug, Clone, Copy)]
pub struct Epoch {
    pub number: u32,
    /// The last revision of those before that is part of it.
    pub base: u64,
}

impl Epochs {
    pub fn new(mut epochs: Vec<Epoch>) -> Self {
        epochs.sort_unstable_by_key(|epoch| epoch.number);
        Self(epochs)
    }

    /// Whether a revision is part of the history that has led to `here`, or could be of what follows it;
    /// `false` for one of an epoch that this replica may only not know yet.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` for one of another installation, and for one that was lost.
    pub fn knows(&self, revision: Revision, here: Revision, field: &str) -> Result<bool> {
        if revision.installation != here.installation {
            return Err(Error::precondition(
                "REVISION_FOREIGN",
                field,
                "the revision is of another installation; use one that this installation answered",
            ));
        }
        if revision.epoch >= here.epoch {
            return Ok(revision.epoch == here.epoch);
        }
        let known = self.0.iter().any(|epoch| epoch.number == revision.epoch);
        match self.base_after(revision.epoch) {
            Some(base) if known && revision.number <= base => Ok(true),
            _ => Err(lost(revision, field)),
        }
    }

    /// The last revision of an epoch, and those before it, that is part of the next one.
    pub fn base_after(&self, epoch: u32) -> Option<u64> {
        self.0.iter().find(|later| later.number > epoch).map(|later| later.base)
    }
}

/// The refusal of a revision that the database does not have any more, with an alarm.
pub fn lost(revision: Revision, field: &str) -> Error {
    metrics::counter!("rolecall_lost_revisions_presented_total").increment(1);
    tracing::error!(%revision, "a caller knows a revision that the database has lost");
    Error::precondition(
        "REVISION_LOST",
        field,
        "the database has lost this revision, in a failover or because an older copy was restored: the \
         change may not have happened; read the present state, and repeat the change if it is missing",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_epoch_kept_is_known_in_all_that_follow() {
        let epoch = |number, base| Epoch { number, base };
        let epochs = Epochs::new(vec![epoch(40, 100), epoch(10, 0), epoch(20, 90)]);
        let here = Revision { installation: 1, epoch: 40, number: 120 };
        let judge = |epoch, number| {
            let revision = Revision { installation: 1, epoch, number };
            epochs.knows(revision, here, "field").map_err(|error| error.reason())
        };
        assert_eq!(judge(10, 90), Ok(true));
        assert_eq!(judge(10, 91), Err("REVISION_LOST"));
        assert_eq!(judge(20, 100), Ok(true));
        assert_eq!(judge(20, 101), Err("REVISION_LOST"));
        assert_eq!(judge(40, 500), Ok(true), "it may be on its way");
        assert_eq!(judge(41, 1), Ok(false), "so may the epoch");
        assert_eq!(judge(30, 1), Err("REVISION_LOST"), "an epoch that a restore has undone");
        assert_eq!(judge(9, 1), Err("REVISION_LOST"));
        let foreign = Revision { installation: 2, ..here };
        assert_eq!(epochs.knows(foreign, here, "field").unwrap_err().reason(), "REVISION_FOREIGN");
    }
}
