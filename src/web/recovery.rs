//! The pages of recovery: choose a new password, confirm a new address.

use axum::{
    Form,
    extract::{FromRequestParts, Path, State, rejection::FormRejection},
    response::Response,
};
use http::{StatusCode, request::Parts as Head};
use minijinja::context;
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    Visitor, Web,
    render::{Pages, failed, see, wait_for},
};
use crate::{
    accounts::User,
    error::{Error, Result},
    passwords::Passwords,
    recovery::{self, Link},
    secret::Proof,
};

const RESET: &str = "/rolecall.v1.UserService/ResetPassword";
const CONFIRM: &str = "/rolecall.v1.UserService/ConfirmEmailChange";

/// What the visitor typed.
#[derive(Deserialize)]
pub struct Typed {
    #[serde(default)]
    password: String,
}

/// Somebody who comes with a link that says which account it is of.
pub struct Guest {
    web: Web,
    visitor: Visitor,
    token: String,
}

impl FromRequestParts<Web> for Guest {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(head: &mut Head, web: &Web) -> Result<Self, Self::Rejection> {
        let visitor = Visitor::of(head);
        let token = Path::<String>::from_request_parts(head, web).await;
        let token = token.map(|Path(token)| token).unwrap_or_default();
        Ok(Self { web: web.clone(), visitor, token })
    }
}

impl Guest {
    fn open(&self, proof: Proof) -> Result<Link> {
        recovery::open(&self.web.app, proof, &self.token)
    }

    fn refused(&self, language: &str, error: &Error) -> Response {
        let notice = |status, state| self.web.pages.plain_notice(status, language, state);
        match (error, error.reason()) {
            (Error::NotFound { .. }, _) => notice(StatusCode::NOT_FOUND, "link_over"),
            (_, "EMAIL_TAKEN") => notice(StatusCode::CONFLICT, "email_taken"),
            (_, "EMAIL_DOMAIN_NOT_ALLOWED") => notice(StatusCode::CONFLICT, "email_domain"),
            (error, _) => failed(&self.web.pages, language, error),
        }
    }

    /// Shows that it is done, in the language in which it was asked for.
    fn done(&self, user: &User, page: &str) -> Response {
        see(&self.web.pages, &user.language, &format!("{page}/{}", user.language))
    }

    fn reset_form(&self, user: &User, problem: &str) -> Response {
        let page = self.web.pages.path(&format!("/password-resets/{}", self.token));
        let values = context! { page => Pages::link(page), email => &user.email, problem };
        self.web.pages.page(StatusCode::OK, &user.language, "password", values)
    }
}

pub async fn show_reset(guest: Guest) -> Response {
    let found = match guest.open(Proof::PASSWORD_RESET) {
        Ok(link) => recovery::look_at_reset(&guest.web.app, &link).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(user) => guest.reset_form(&user, ""),
        Err(error) => guest.refused(guest.visitor.language, &error),
    }
}

pub async fn reset(guest: Guest, typed: Result<Form<Typed>, FormRejection>) -> Response {
    let found = match guest.open(Proof::PASSWORD_RESET) {
        Ok(link) => recovery::look_at_reset(&guest.web.app, &link).await.map(|user| (link, user)),
        Err(error) => Err(error),
    };
    let (link, user) = match found {
        Ok(found) => found,
        Err(error) => return guest.refused(guest.visitor.language, &error),
    };
    let Ok(Form(typed)) = typed else {
        return guest.web.pages.plain_notice(StatusCode::BAD_REQUEST, &user.language, "unreadable");
    };
    let password = SecretString::from(typed.password);
    let done = match (Passwords::check_length("length", &password), guest.visitor.call(RESET)) {
        (Ok(()), Ok(call)) => recovery::set_password(&guest.web.app, &call, link, password).await,
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    let (status, problem, error) = match done {
        Ok(()) => return guest.done(&user, "/password-resets/done"),
        Err(error) => match (error.reason(), error.field()) {
            ("INVALID_FIELD", "length") => {
                (StatusCode::UNPROCESSABLE_ENTITY, "password_length", error)
            }
            ("INVALID_FIELD", _) => (StatusCode::UNPROCESSABLE_ENTITY, "password_guessed", error),
            ("TOO_MANY_SIGN_INS" | "TENANT_BUSY" | "UNAVAILABLE" | "CONFLICT", _) => {
                (StatusCode::SERVICE_UNAVAILABLE, "busy", error)
            }
            _ => return guest.refused(&user.language, &error),
        },
    };
    let mut response = guest.reset_form(&user, problem);
    *response.status_mut() = status;
    wait_for(&mut response, &error);
    response
}

pub async fn reset_done(State(web): State<Web>, Path(language): Path<String>) -> Response {
    web.pages.plain_notice(StatusCode::OK, &language, "reset_done")
}

pub async fn show_email(guest: Guest) -> Response {
    let found = match guest.open(Proof::EMAIL_CHANGE) {
        Ok(link) => recovery::look_at_email(&guest.web.app, &link).await,
        Err(error) => Err(error),
    };
    match found {
        Ok((user, email)) => {
            let page = guest.web.pages.path(&format!("/email-changes/{}", guest.token));
            let values = context! { page => Pages::link(page), old => &user.email, email };
            guest.web.pages.page(StatusCode::OK, &user.language, "email", values)
        }
        Err(error) => guest.refused(guest.visitor.language, &error),
    }
}

pub async fn confirm_email(guest: Guest) -> Response {
    let found = match guest.open(Proof::EMAIL_CHANGE) {
        Ok(link) => {
            recovery::look_at_email(&guest.web.app, &link).await.map(|(user, _)| (link, user))
        }
        Err(error) => Err(error),
    };
    let (link, user) = match found {
        Ok(found) => found,
        Err(error) => return guest.refused(guest.visitor.language, &error),
    };
    let done = match guest.visitor.call(CONFIRM) {
        Ok(call) => recovery::confirm(&guest.web.app, &call, link).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => guest.done(&user, "/email-changes/done"),
        Err(error) => guest.refused(&user.language, &error),
    }
}

pub async fn email_done(State(web): State<Web>, Path(language): Path<String>) -> Response {
    web.pages.plain_notice(StatusCode::OK, &language, "email_done")
}
