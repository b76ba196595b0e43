//! The pages behind the links in mails. Whoever has a link is its person: a page uses the same
//! operations as the RPCs, and nothing else.
//!
//! Owns how pages look and what a browser is told. No script, no cookie, nothing from elsewhere;
//! opening a page uses nothing up, because mail scanners open links, too.

mod guard;
mod invitations;
mod recovery;
mod render;

use std::{net::IpAddr, ops::Deref, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, DefaultBodyLimit},
    middleware,
    routing::{get, post},
};
use http::{HeaderMap, header, request::Parts as Head};
use tokio::runtime::Handle;

use crate::{
    app::App,
    caller::{Call, Peer, user_agent},
    error::Result,
};

/// The longest form, in bytes.
const MAX_FORM: usize = 16 * 1024;

/// What every page needs at hand. Cheap to clone.
#[derive(Clone)]
struct Web(Arc<Parts>);

struct Parts {
    app: App,
    pages: render::Pages,
    guard: guard::Guard,
}

impl Deref for Web {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The pages, to be served beside the RPCs. They run on the runtime that this is called on.
///
/// # Errors
/// When a page's template is broken.
pub fn router(app: &App) -> Result<Router> {
    let guard = guard::Guard::new(&app.public_url, Handle::current());
    let web = Web(Arc::new(Parts {
        app: app.clone(),
        pages: render::Pages::new(&app.public_url)?,
        guard,
    }));
    Ok(Router::new()
        .route("/invitations/{token}", get(invitations::show))
        .route("/invitations/{token}/accept", post(invitations::accept))
        .route("/invitations/{token}/welcome", get(invitations::welcome))
        .route(
            "/invitations/{token}/decline",
            get(invitations::ask_decline).post(invitations::decline),
        )
        .route(
            "/invitations/{token}/request",
            get(invitations::ask_request).post(invitations::request),
        )
        .route("/password-resets/done/{language}", get(recovery::reset_done))
        .route("/password-resets/{token}", get(recovery::show_reset).post(recovery::reset))
        .route("/email-changes/done/{language}", get(recovery::email_done))
        .route("/email-changes/{token}", get(recovery::show_email).post(recovery::confirm_email))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn_with_state(web.clone(), guard::pass))
        .with_state(web))
}

/// Who looks at a page.
struct Visitor {
    source: Option<IpAddr>,
    user_agent: String,
    /// `en` or `fr`, as the browser prefers.
    language: &'static str,
}

impl Visitor {
    fn of(head: &Head) -> Self {
        Self {
            source: source(&head.extensions),
            user_agent: user_agent(&head.headers),
            language: preferred(&head.headers),
        }
    }

    /// The call of a public RPC that the page makes for its visitor.
    fn call(&self, path: &'static str) -> Result<Call> {
        let source = self.source.map_or_else(String::new, |source| source.to_string());
        Call::of_page(path, source, self.user_agent.clone())
    }
}

fn source(extensions: &http::Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.0.ip())
}

/// The language of ours that the browser likes best; English when it likes none.
fn preferred(headers: &HeaderMap) -> &'static str {
    let wishes = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let mut best = ("en", 0.0_f32);
    for wish in wishes.unwrap_or_default().split(',').take(20) {
        let (tag, quality) = wish.split_once(";q=").unwrap_or((wish, "1"));
        let language = match tag.trim().split('-').next() {
            Some(name) if name.eq_ignore_ascii_case("fr") => "fr",
            Some(name) if name.eq_ignore_ascii_case("en") => "en",
            _ => continue,
        };
        let quality = quality.trim().parse().unwrap_or(0.0);
        if quality > best.1 {
            best = (language, quality);
        }
    }
    best.0
}

/// The path of the public address, for installations that live below another page.
fn root(public_url: &str) -> &str {
    let rest = public_url.split_once("://").map_or("", |(_, rest)| rest);
    rest.find('/').map_or("", |at| &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browser_says_which_language_it_likes() {
        let preferred = |wishes: &'static str| {
            preferred(&HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, wishes.parse().unwrap())]))
        };
        assert_eq!(preferred("fr-CH, fr;q=0.9, en;q=0.8"), "fr");
        assert_eq!(preferred("de, en;q=0.5, fr;q=0.7"), "fr");
        assert_eq!(preferred("de"), "en");
        assert_eq!(preferred("en-GB,fr;q=0.1"), "en");
        assert_eq!(preferred(";q=;;,q=9,fr;q=x"), "en");
    }

    #[test]
    fn pages_may_live_below_another() {
        assert_eq!(root("https://id.example.com"), "");
        assert_eq!(root("https://example.com/id"), "/id");
    }
}
