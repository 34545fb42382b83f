//! Who asks, where proxies stand between: the last hop that no trusted proxy has written about itself. What a peer that
//! is no trusted proxy says of others counts for nothing.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FIELD: &str = "x-forwarded-for";

/// The address of who asks. Several fields of the name are one list (RFC 9110 section 5.3); each proxy adds at its end
/// whom it saw.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let trusts = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let mut hop = peer;
    let fields = headers.get_all(FIELD).iter().collect::<Vec<_>>();
    let mut told = fields.iter().rev().flat_map(|field| field.as_bytes().rsplit(|b| *b == b','));
    while trusts(hop) {
        // What is no address ends what is known: whoever wrote it is asking.
        let Some(before) = told.next().and_then(address) else { break };
        hop = before;
    }
    hop
}

/// `192.0.2.1`, `2001:db8::1`, either with a port, the latter then in brackets.
fn address(told: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(told).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|at| at.ip());
    bare.parse::<IpAddr>().or_else(|_| with_port()).ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(peer: &str, fields: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap());
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FIELD, field.parse().unwrap());
        }
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_rightmost_hop_that_is_no_trusted_proxy_asks() {
        for (peer, fields, who) in [
            ("192.0.2.9", &["198.51.100.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.7, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.7", "198.51.100.1 ,10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("::1", &["[2001:db8::1]:4711, ::1"], "2001:db8::1"),
            ("::1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, , 10.0.0.2"], "10.0.0.2"),
        ] {
            assert_eq!(asked_by(peer, fields), who, "{peer} {fields:?}");
        }
    }
}
