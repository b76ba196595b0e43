//! Pages from templates: one file for each page and language, around one layout. Every value is escaped.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use minijinja::{Environment, UndefinedBehavior, Value, context};
use sha2::{Digest, Sha256};

use super::root;
use crate::{
    error::{Error, Result},
    text,
};

const LAYOUT: &str = include_str!("templates/layout.html");
const STYLE: &str = include_str!("templates/style.css");

macro_rules! pages {
    ($($language:literal: $($name:literal),*);* $(;)?) => {
        [$($((
            concat!($language, "/", $name, ".html"),
            include_str!(concat!("templates/", $language, "/", $name, ".html")),
        )),*),*]
    };
}

const PAGES: [(&str, &str); 12] = pages! {
    "en": "invitation", "decline", "request", "password", "email", "notice";
    "fr": "invitation", "decline", "request", "password", "email", "notice";
};

pub struct Pages {
    environment: Environment<'static>,
    policy: HeaderValue,
    root: String,
}

impl Pages {
    /// # Errors
    /// When a template is broken.
    pub fn new(public_url: &str) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_template("layout.html", LAYOUT).map_err(Error::internal)?;
        for (name, source) in PAGES {
            environment.add_template(name, source).map_err(Error::internal)?;
        }
        let style = BASE64.encode(Sha256::digest(STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy).map_err(Error::internal)?;
        Ok(Self { environment, policy, root: root(public_url).to_owned() })
    }

    /// What the browser may do with a page: nothing but show it in our style and send its forms to us.
    pub fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }

    /// The address of a page on this server.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    pub fn page(&self, status: StatusCode, language: &str, name: &str, values: Value) -> Response {
        match self.render(language, name, values) {
            Ok(html) => {
                let html_type = HeaderValue::from_static("text/html; charset=utf-8");
                (status, [(CONTENT_TYPE, html_type)], html).into_response()
            }
            Err(error) => {
                tracing::error!(error = %crate::error::chain(&error), "a page cannot be written");
                let mut response = Response::new(Body::from("internal error"));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }

    fn render(
        &self,
        language: &str,
        name: &str,
        values: Value,
    ) -> Result<String, minijinja::Error> {
        let language = if language == "fr" { "fr" } else { "en" };
        let page = self.environment.get_template(&format!("{language}/{name}.html"))?;
        let style = Value::from_safe_string(STYLE.to_owned());
        page.render(context! { lang => language, style => style, ..values })
    }

    /// An address, with no more escaped than has to be.
    pub fn link(address: String) -> Value {
        match text::is_plain(&address) {
            true => Value::from_safe_string(address),
            false => address.into(),
        }
    }

    /// A notice that knows no invitation.
    pub fn plain_notice(&self, status: StatusCode, language: &str, state: &str) -> Response {
        let nothing = context! { tenant => "", home => "", ask => false, again => false };
        self.page(status, language, "notice", context! { state => state, ..nothing })
    }
}

/// A page for what no page has words for.
pub fn failed(pages: &Pages, language: &str, error: &Error) -> Response {
    let (status, state) = match error {
        Error::NotFound { .. } => (StatusCode::NOT_FOUND, "unknown"),
        Error::Unavailable { .. } | Error::Deadline | Error::Aborted { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "busy")
        }
        Error::Exhausted { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_often"),
        error => {
            tracing::error!(error = %crate::error::chain(error), "a page failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "failed")
        }
    };
    let mut response = pages.plain_notice(status, language, state);
    wait_for(&mut response, error);
    response
}

/// Says when to come back, where that is known.
pub fn wait_for(response: &mut Response, error: &Error) {
    if let Error::Exhausted { retry_after, .. } | Error::Unavailable { retry_after, .. } = error {
        let seconds = HeaderValue::from(retry_after.as_secs().max(1));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
}

/// Sends the browser to another page of ours, so that going back or reloading repeats nothing.
pub fn see(pages: &Pages, language: &str, path: &str) -> Response {
    match HeaderValue::try_from(pages.path(path)) {
        Ok(there) => (StatusCode::SEE_OTHER, [(LOCATION, there)]).into_response(),
        Err(error) => failed(pages, language, &Error::internal(error)),
    }
}
