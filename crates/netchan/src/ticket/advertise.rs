//! Which addresses a ticket names.

use std::net::{IpAddr, SocketAddr};

use if_addrs::{IfOperStatus, Interface};

use super::TICKET_ADDRESSES_MAX;
use crate::address::{Address, AddressError};

/// The addresses clients should dial, for a server that listens on `listening`.
///
/// Where the server listens on every interface (`0.0.0.0`, `[::]`), that is each address of this machine: IPv4 before IPv6,
/// and loopback only if there is nothing else, at most [`TICKET_ADDRESSES_MAX`]. Where `advertise` is not empty, it is exactly that: hosts, to which the
/// listeners' ports are added, or whole addresses.
///
/// ```
/// use netchan::ticket::advertised_addresses;
///
/// let listening = ["0.0.0.0:9876".parse()?];
/// let found = advertised_addresses(&listening, &["server.example.org".to_owned()])?;
/// assert_eq!(found, ["server.example.org:9876".parse()?]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// When an entry of `advertise` is neither a host nor an address, or is a host while nothing listens on TCP.
pub fn advertised_addresses(
    listening: &[Address],
    advertise: &[String],
) -> Result<Vec<Address>, AdvertiseError> {
    if advertise.is_empty() {
        let mut found = expand(listening, interfaces);
        found.truncate(TICKET_ADDRESSES_MAX);
        return Ok(found);
    }
    let ports: Vec<u16> = listening.iter().filter_map(Address::host_port).map(|(_, port)| port).collect();
    let mut found = Vec::new();
    for entry in advertise {
        let invalid = |source| AdvertiseError::Invalid { entry: entry.clone(), source };
        match with_ports(entry, &ports) {
            Some(addresses) if addresses.is_empty() => {
                return Err(AdvertiseError::NoPort { entry: entry.clone() });
            }
            Some(addresses) => addresses.into_iter().for_each(|address| push_new(&mut found, address)),
            None => push_new(&mut found, entry.parse().map_err(invalid)?),
        }
    }
    Ok(found)
}

/// Why an entry of `advertise` is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertiseError {
    /// It is neither a host nor an address.
    #[error("cannot advertise {entry:?}: {source}")]
    Invalid {
        /// The entry.
        entry: String,
        /// Why it is no address.
        source: AddressError,
    },
    /// It is a host, but there is no TCP listener to take the port from.
    #[error("cannot advertise {entry:?} without a port, since nothing listens on TCP; write {entry}:9876")]
    NoPort {
        /// The entry.
        entry: String,
    },
}

/// The addresses of an entry that names a host only; `None` when it says more.
fn with_ports(entry: &str, ports: &[u16]) -> Option<Vec<Address>> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let host_only = bare.parse::<IpAddr>().is_ok() || !entry.contains([':', '/']);
    Address::tcp(bare, 0).ok().filter(|_| host_only)?;
    Some(ports.iter().filter_map(|&port| Address::tcp(bare, port).ok()).collect())
}

fn expand(listening: &[Address], interfaces: impl Fn() -> Vec<IpAddr>) -> Vec<Address> {
    let mut found = Vec::new();
    for address in listening {
        match (address.ip(), address.host_port()) {
            (Some(ip), Some((_, port))) if ip.is_unspecified() => {
                for reachable in reachable_at(ip, interfaces()) {
                    push_new(&mut found, Address::from(SocketAddr::new(reachable, port)));
                }
            }
            _ => push_new(&mut found, address.clone()),
        }
    }
    found
}

fn reachable_at(unspecified: IpAddr, mut candidates: Vec<IpAddr>) -> Vec<IpAddr> {
    // [::] takes IPv4 too, 0.0.0.0 takes nothing else.
    candidates.retain(|ip| (unspecified.is_ipv6() || ip.is_ipv4()) && !is_link_local(*ip));
    candidates.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    if candidates.iter().any(|ip| !ip.is_loopback()) {
        candidates.retain(|ip| !ip.is_loopback());
    }
    if candidates.is_empty() {
        candidates.push(IpAddr::from([127, 0, 0, 1]));
    }
    candidates
}

/// Means something else on each machine, so it has no place in a ticket.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn interfaces() -> Vec<IpAddr> {
    let down = |interface: &Interface| {
        matches!(
            interface.oper_status,
            IfOperStatus::Down | IfOperStatus::NotPresent | IfOperStatus::LowerLayerDown
        )
    };
    match if_addrs::get_if_addrs() {
        Ok(found) => found.iter().filter(|interface| !down(interface)).map(Interface::ip).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list this machine's addresses; the ticket names only loopback");
            Vec::new()
        }
    }
}

fn push_new(found: &mut Vec<Address>, address: Address) {
    if !found.contains(&address) {
        found.push(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(listening: &[&str], interfaces: &[&str]) -> Vec<String> {
        let listening: Vec<Address> = listening.iter().map(|text| text.parse().unwrap()).collect();
        let interfaces = || interfaces.iter().map(|text| text.parse().unwrap()).collect();
        expand(&listening, interfaces).iter().map(Address::rest).collect()
    }

    #[test]
    fn every_interface() {
        let machine = ["127.0.0.1", "::1", "2001:db8::7", "fe80::1", "10.0.0.7", "169.254.3.3"];
        assert_eq!(expanded(&["0.0.0.0:9"], &machine), ["10.0.0.7:9"]);
        assert_eq!(expanded(&["[::]:9"], &machine), ["10.0.0.7:9", "[2001:db8::7]:9"]);
        assert_eq!(expanded(&["[::]:9"], &["127.0.0.1", "::1"]), ["127.0.0.1:9", "[::1]:9"]);
        assert_eq!(expanded(&["0.0.0.0:9"], &[]), ["127.0.0.1:9"]);
    }

    #[test]
    fn a_given_address_stays_and_none_comes_twice() {
        let listening = ["10.0.0.7:9", "0.0.0.0:9", "unix:///run/a.sock", "0.0.0.0:10"];
        assert_eq!(expanded(&listening, &["10.0.0.7"]), ["10.0.0.7:9", "/run/a.sock", "10.0.0.7:10"]);
    }
}
