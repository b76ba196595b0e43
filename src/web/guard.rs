//! What surrounds every page: where it runs, how often, who may send a form, and what the browser is
//! told. Addresses of pages carry tokens, so they are in no log and no metric.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use governor::{Quota, RateLimiter, clock::DefaultClock, state::keyed::HashMapStateStore};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, ORIGIN, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use tokio::runtime::Handle;

use super::{Web, preferred, source};

/// The longest that a page may take.
const LONGEST: Duration = Duration::from_secs(30);
/// Pages for one address: so many a second, and so many at once. Wide, because a whole company may come
/// from one; what can be guessed is counted for each link besides.
const A_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();
const AT_ONCE: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Addresses to remember before those that rest are forgotten.
const REMEMBERED: usize = 10_000;

pub struct Guard {
    limiter: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>,
    work: Handle,
    /// Scheme, host and port of the public address.
    origin: String,
}

impl Guard {
    pub fn new(public_url: &str, work: Handle) -> Self {
        let quota = Quota::per_second(A_SECOND).allow_burst(AT_ONCE);
        let host_at = public_url.find("://").map_or(0, |at| at + 3);
        let end = public_url[host_at..].find('/').map_or(public_url.len(), |at| host_at + at);
        let origin = public_url[..end].to_owned();
        Self { limiter: RateLimiter::hashmap(quota), work, origin }
    }

    fn too_often(&self, source: Option<IpAddr>) -> bool {
        let Some(source) = source else { return false };
        if self.limiter.len() > REMEMBERED {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&network(source)).is_err()
    }

    /// Whether a form was sent from a page of ours. No cookie speaks for anybody, so this is the second
    /// line: the token is the first. Our pages send no referrer, hence browsers the origin `null`.
    fn is_ours(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
            (Some(site), _) => site == "same-origin",
            (None, None | Some("null")) => true,
            (None, Some(origin)) => origin == self.origin,
        }
    }
}

/// Whoever has one address of IPv6 has its whole network.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

pub async fn pass(State(web): State<Web>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let language = preferred(request.headers());
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or_else(|| "?".to_owned(), |path| path.as_str().to_owned());
    let source = source(request.extensions());
    let notice = |status, state| web.pages.plain_notice(status, language, state);
    let mut response = if web.guard.too_often(source) {
        notice(StatusCode::TOO_MANY_REQUESTS, "too_often")
    } else if request.method() == Method::POST && !web.guard.is_ours(request.headers()) {
        notice(StatusCode::FORBIDDEN, "elsewhere")
    } else {
        // Spawned: whoever closes the page does not cut a change in half.
        let task = web.guard.work.spawn(next.run(request));
        match tokio::time::timeout(LONGEST, task).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => notice(StatusCode::INTERNAL_SERVER_ERROR, "failed"),
            Err(_) => notice(StatusCode::SERVICE_UNAVAILABLE, "busy"),
        }
    };
    tell_browser(&web, response.headers_mut());
    let status = response.status().as_u16().to_string();
    tracing::info!(http.route = route, http.status = status, "page");
    metrics::histogram!(
        "http_server_request_duration_seconds",
        "http_route" => route,
        "http_response_status_code" => status
    )
    .record(started.elapsed());
    response
}

fn tell_browser(web: &Web, headers: &mut HeaderMap) {
    const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
    const RESOURCE: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (OPENER, "same-origin"),
        (RESOURCE, "same-origin"),
        (ROBOTS, "noindex, nofollow"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_SECURITY_POLICY, web.pages.policy());
    if web.guard.origin.starts_with("https://") {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(STRICT_TRANSPORT_SECURITY, year);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn forms_come_is_ours() {
        let guard = Guard::new("https://id.example.com/below", Handle::current());
        let is_ours = |given: &[(&'static str, &str)]| {
            let headers = given
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            guard.is_ours(&headers.collect())
        };
        assert!(is_ours(&[("sec-fetch-site", "same-origin"), ("origin", "null")]));
        assert!(is_ours(&[("origin", "https://id.example.com")]));
        assert!(is_ours(&[]));
        assert!(!is_ours(&[("sec-fetch-site", "cross-site"), ("origin", "null")]));
        assert!(!is_ours(&[("sec-fetch-site", "same-site")]));
        assert!(!is_ours(&[("origin", "https://evil.example")]));
        assert!(!is_ours(&[("origin", "https://id.example.com.evil.example")]));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8::1:2:3:4"), "2001:db8::");
        assert_eq!(network("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(network("10.0.0.1"), "10.0.0.1");
    }
}
