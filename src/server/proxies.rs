//! Proxies in front: where one of them that is trusted says who called, that counts as the peer, for
//! calls and pages alike.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::Response,
};
use http::HeaderMap;
use ipnet::IpNet;

use crate::caller::Peer;

/// Replaces the peer of a request by whom the proxies in front say it came from.
pub async fn believe(
    State(trusted): State<Arc<[IpNet]>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(ConnectInfo(Peer(peer))) = request.extensions().get::<ConnectInfo<Peer>>().copied()
    {
        let told = source(peer.ip().to_canonical(), request.headers(), &trusted);
        let peer = Peer(SocketAddr::new(told, peer.port()));
        request.extensions_mut().insert(ConnectInfo(peer));
    }
    next.run(request).await
}

/// Who called: the nearest address that no trusted proxy has, or says another has.
fn source(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut nearest = peer;
    let told: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    // The last one was added by the nearest proxy; what stands before an untrusted one is hearsay.
    for address in told.iter().rev() {
        let Ok(address) = address.trim().parse::<IpAddr>() else { return nearest };
        if !is_trusted(&nearest) {
            return nearest;
        }
        nearest = address.to_canonical();
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_say_who_called() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let from = |peer: &str, told: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in told {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            source(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(from("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "nobody asked the stranger");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.2.3.4"]), "198.51.100.7");
        assert_eq!(from("10.0.0.1", &["1.1.1.1", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("fd00::1", &["2001:db8::7"]), "2001:db8::7");
        assert_eq!(from("10.0.0.1", &["nonsense"]), "10.0.0.1");
    }
}
