//! What a page does for its visitor, each as one change: there is no half of it.

use super::{Link, Means};
use crate::{
    app::App,
    caller::Call,
    change::{self, Options},
    error::Result,
};

/// Joins by a link.
///
/// # Errors
/// What [`super::prove`] and [`super::accept`] refuse.
pub async fn join(app: &App, call: &Call, link: Link, means: Means) -> Result<()> {
    let proof = super::prove(app, call, &link, means).await?;
    let claim = call.claim_link(link.key.as_str())?;
    change::run(app, call, claim, Options::default(), (link, proof), |change, (link, proof)| {
        Box::pin(async move { super::accept(change, &link, proof).await.map(drop) })
    })
    .await
}

/// Declines by a link.
///
/// # Errors
/// What [`super::decline`] refuses.
pub async fn say_no(app: &App, call: &Call, link: Link) -> Result<()> {
    let claim = call.claim_link(link.key.as_str())?;
    change::run(app, call, claim, Options::default(), link, |change, link| {
        Box::pin(async move { super::decline(change, &link).await })
    })
    .await
}

/// Asks for a new link.
///
/// # Errors
/// What [`super::count_request`] and [`super::request`] refuse.
pub async fn ask(app: &App, call: &Call, link: Link) -> Result<()> {
    super::count_request(app, &link).await?;
    let claim = call.claim_link(link.key.as_str())?;
    change::run(app, call, claim, Options::default(), link, |change, link| {
        Box::pin(async move { super::request(change, &link).await })
    })
    .await
}
