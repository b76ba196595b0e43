//! The pages of an invitation: see it, accept it, decline it, ask for a new link.

use axum::{
    Form,
    extract::{FromRequestParts, Path, rejection::FormRejection},
    response::Response,
};
use http::{StatusCode, request::Parts as Head};
use minijinja::{Value, context};
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    Visitor, Web,
    render::{Pages, failed, see, wait_for},
};
use crate::{
    error::{Error, Result},
    joining::{self, Link, LinkState, Look, Means, Offer},
    passwords::Passwords,
    text,
};

const ACCEPT: &str = "/rolecall.v1.InvitationService/AcceptInvitation";
const DECLINE: &str = "/rolecall.v1.InvitationService/DeclineInvitation";
const REQUEST: &str = "/rolecall.v1.InvitationService/RequestInvitation";
/// The longest first or last name, in characters.
const MAX_NAME: usize = 100;

/// What the visitor typed.
#[derive(Deserialize, Default)]
pub struct Accept {
    #[serde(default)]
    first_name: String,
    #[serde(default)]
    last_name: String,
    #[serde(default)]
    password: String,
    /// `existing` or `new`, as the page was when it was filled in.
    #[serde(default)]
    account: String,
}

pub async fn show(visit: Visit) -> Response {
    match visit.look.state {
        LinkState::Open => visit.form(&Accept::default(), ""),
        state => visit.notice(StatusCode::OK, name(state)),
    }
}

pub async fn accept(visit: Visit, typed: Result<Form<Accept>, FormRejection>) -> Response {
    let Ok(Form(mut typed)) = typed else {
        let language = &visit.look.language;
        return visit.web.pages.plain_notice(StatusCode::BAD_REQUEST, language, "unreadable");
    };
    let password = SecretString::from(std::mem::take(&mut typed.password));
    let joined = match means(&typed, password) {
        Ok(means) => visit.join(means).await,
        Err(error) => Err(error),
    };
    match joined {
        Ok(()) => visit.see("/welcome"),
        Err(error) => refused(visit, &typed, error).await,
    }
}

fn means(typed: &Accept, password: SecretString) -> Result<Means> {
    if typed.account == "existing" {
        return Ok(Means::Password(password));
    }
    let name = |field, text: &str| text::line(field, text, MAX_NAME);
    let first_name = name("first_name", &typed.first_name)?;
    let last_name = name("last_name", &typed.last_name)?;
    // Here, because the page tells the two ways of being wrong apart.
    Passwords::check_length("length", &password)?;
    Ok(Means::New { password, first_name, last_name })
}

/// Shows the form again with what is wrong, or where the invitation stands now.
async fn refused(mut visit: Visit, typed: &Accept, error: Error) -> Response {
    visit.look = match joining::look(&visit.web.app, &visit.link).await {
        Ok(look) => look,
        Err(error) => return failed(&visit.web.pages, &visit.look.language, &error),
    };
    let problem = match (error.reason(), error.field()) {
        ("PASSWORD_WRONG", _) => "password_wrong",
        ("INVALID_FIELD", "length") => "password_length",
        ("INVALID_FIELD", "new_account.password") => "password_guessed",
        ("INVALID_FIELD", _) => "name",
        ("ACCOUNT_EXISTS" | "ACCOUNT_NEEDED", _) => "account",
        ("TOO_MANY_ATTEMPTS" | "TOO_MANY_SIGN_INS" | "TENANT_BUSY", _) => "too_often",
        ("UNAVAILABLE" | "DEADLINE_EXCEEDED" | "CONFLICT", _) => "busy",
        _ if visit.look.state != LinkState::Open => return visit.see(""),
        ("INVITER_LOST_RIGHT", _) => return visit.notice(StatusCode::CONFLICT, "inviter"),
        ("EMAIL_DOMAIN_NOT_ALLOWED", _) => return visit.notice(StatusCode::CONFLICT, "domain"),
        ("ALREADY_EXISTS", _) => return visit.notice(StatusCode::CONFLICT, "member"),
        ("ACCOUNT_DISABLED", _) => return visit.notice(StatusCode::FORBIDDEN, "disabled"),
        _ => return failed(&visit.web.pages, &visit.look.language, &error),
    };
    let mut response = visit.form(typed, problem);
    *response.status_mut() = match problem {
        "too_often" => StatusCode::TOO_MANY_REQUESTS,
        "busy" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    wait_for(&mut response, &error);
    response
}

pub async fn welcome(visit: Visit) -> Response {
    match visit.look.state {
        LinkState::Accepted => visit.notice(StatusCode::OK, "welcome"),
        _ => visit.see(""),
    }
}

pub async fn ask_decline(visit: Visit) -> Response {
    match visit.look.state {
        LinkState::Open | LinkState::TenantSuspended => visit.page("decline"),
        _ => visit.see(""),
    }
}

pub async fn decline(visit: Visit) -> Response {
    let declined = match visit.visitor.call(DECLINE) {
        Ok(call) => joining::say_no(&visit.web.app, &call, visit.link.clone()).await,
        Err(error) => Err(error),
    };
    match declined {
        Err(error) if visit.look.state == LinkState::Open => {
            failed(&visit.web.pages, &visit.look.language, &error)
        }
        // However it ended, that page says how.
        Ok(()) | Err(_) => visit.see(""),
    }
}

pub async fn ask_request(visit: Visit) -> Response {
    match visit.look.state {
        LinkState::Accepted => visit.see(""),
        _ => visit.page("request"),
    }
}

pub async fn request(visit: Visit) -> Response {
    let asked = match visit.visitor.call(REQUEST) {
        Ok(call) => joining::ask(&visit.web.app, &call, visit.link.clone()).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(()) => visit.notice(StatusCode::OK, "asked"),
        Err(error) if error.reason() == "TOO_MANY_ATTEMPTS" => {
            let mut response = visit.notice(StatusCode::TOO_MANY_REQUESTS, "asked_often");
            wait_for(&mut response, &error);
            response
        }
        Err(_) if visit.look.state == LinkState::Accepted => visit.see(""),
        Err(error) => failed(&visit.web.pages, &visit.look.language, &error),
    }
}

/// A visit of an invitation that exists.
pub struct Visit {
    web: Web,
    visitor: Visitor,
    /// Genuine, so it holds nothing to escape.
    token: String,
    link: Link,
    look: Look,
}

impl FromRequestParts<Web> for Visit {
    type Rejection = Response;

    /// Finds the invitation, or says that the link is none of ours.
    async fn from_request_parts(head: &mut Head, web: &Web) -> Result<Self, Response> {
        let visitor = Visitor::of(head);
        let token = Path::<String>::from_request_parts(head, web).await;
        let token = token.map(|Path(token)| token).unwrap_or_default();
        let found = match joining::open(&web.app, &token) {
            Ok(link) => joining::look(&web.app, &link).await.map(|look| (link, look)),
            Err(error) => Err(error),
        };
        match found {
            Ok((link, look)) => Ok(Self { web: web.clone(), visitor, token, link, look }),
            Err(error) => Err(failed(&web.pages, visitor.language, &error)),
        }
    }
}

impl Visit {
    async fn join(&self, means: Means) -> Result<()> {
        let call = self.visitor.call(ACCEPT)?;
        joining::join(&self.web.app, &call, self.link.clone(), means).await
    }

    fn path(&self) -> String {
        self.web.pages.path(&format!("/invitations/{}", self.token))
    }

    /// What every page of an invitation shows.
    fn values(&self) -> Value {
        let Look { language, offers, .. } = &self.look;
        let offers = offers.iter().map(|offer| {
            let ends = offer.ends.map(|ends| text::moment(ends, language)).unwrap_or_default();
            let Offer { role, workspace, path, .. } = offer;
            context! { role, workspace, path, ends }
        });
        context! {
            page => Pages::link(self.path()),
            tenant => &self.look.tenant_name,
            inviter => &self.look.inviter_name,
            email => &self.look.email,
            message => &self.look.message,
            expires => text::moment(self.look.expires_at, language),
            home => Pages::link(self.look.home_url.clone()),
            offers => offers.collect::<Vec<_>>(),
            has_account => self.look.has_account,
        }
    }

    fn page(&self, name: &str) -> Response {
        self.web.pages.page(StatusCode::OK, &self.look.language, name, self.values())
    }

    fn form(&self, typed: &Accept, problem: &str) -> Response {
        let kept = |typed: &str, invited: &str| {
            let untouched = problem.is_empty();
            if untouched { invited.to_owned() } else { typed.to_owned() }
        };
        let values = context! {
            problem,
            first_name => kept(&typed.first_name, &self.look.first_name),
            last_name => kept(&typed.last_name, &self.look.last_name),
            ..self.values()
        };
        self.web.pages.page(StatusCode::OK, &self.look.language, "invitation", values)
    }

    /// A page that says how things stand, with the way on where there is one.
    fn notice(&self, status: StatusCode, state: &str) -> Response {
        let may_ask = ["expired", "replaced", "cancelled", "declined", "disabled", "inviter"];
        let values = context! {
            state,
            ask => may_ask.contains(&state),
            again => state == "suspended",
            ..self.values()
        };
        self.web.pages.page(status, &self.look.language, "notice", values)
    }

    /// Sends the browser to another page of the invitation.
    fn see(&self, below: &str) -> Response {
        let page = format!("/invitations/{}{below}", self.token);
        see(&self.web.pages, &self.look.language, &page)
    }
}

const fn name(state: LinkState) -> &'static str {
    match state {
        LinkState::Open => "open",
        LinkState::Expired => "expired",
        LinkState::Replaced => "replaced",
        LinkState::Cancelled => "cancelled",
        LinkState::Declined => "declined",
        LinkState::Accepted => "accepted",
        LinkState::TenantSuspended => "suspended",
    }
}
