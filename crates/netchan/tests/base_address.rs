//! Addresses: what is read, what is written, and what each error says.

use netchan::address::{Address, AddressError};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Address, AddressError> {
    text.parse()
}

#[test]
fn what_is_read_is_written_in_full() {
    for (text, full) in [
        ("localhost:9876", "tcp://localhost:9876"),
        ("  localhost:9876\n", "tcp://localhost:9876"),
        ("tcp://0.0.0.0:0", "tcp://0.0.0.0:0"),
        ("TCP://a.example.org:65535", "tcp://a.example.org:65535"),
        ("[::1]:9", "tcp://[::1]:9"),
        ("tcp://[fe80::1%eth0]:9", "tcp://[fe80::1%eth0]:9"),
        ("bücher.example:9", "tcp://bücher.example:9"),
        ("unix:///run/app.sock", "unix:///run/app.sock"),
        ("memory://jobs", "memory://jobs"),
        ("foo+1://any thing?#", "foo+1://any thing?#"),
        ("foo://", "foo://"),
    ] {
        let address = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(address.to_string(), full);
        assert_eq!(parse(full), Ok(address));
    }
}

#[test]
fn parts() {
    let tcp = parse("[::1]:9").unwrap();
    assert_eq!((tcp.scheme(), tcp.host_port(), tcp.ip()), ("tcp", Some(("::1", 9)), "::1".parse().ok()));
    assert_eq!(tcp, Address::tcp("::1", 9).unwrap());
    assert_eq!(tcp, Address::from(std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 9))));
    let unix = Address::unix("/run/app.sock").unwrap();
    assert_eq!(unix.path(), Some("/run/app.sock".as_ref()));
    assert_eq!(Address::memory("jobs").unwrap().memory_name(), Some("jobs"));
    let other = parse("foo://a/b").unwrap();
    assert_eq!((other.scheme(), other.rest().as_str(), other.host_port()), ("foo", "a/b", None));
    let json = serde_json::to_string(&tcp).unwrap();
    assert_eq!(json, "\"tcp://[::1]:9\"");
    assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), tcp);
    assert!(serde_json::from_str::<Address>("\"localhost\"").is_err());
}

#[test]
fn errors_say_what_to_write() {
    for (text, hint) in [
        ("", "localhost:9876"),
        ("localhost", "localhost:9876"),
        ("localhost:", "localhost:9876"),
        ("[::1]", "[::1]:9876"),
        ("[::1]9876", "[::1]:9876"),
        (":9876", "0.0.0.0:9876"),
        ("tcp://:9876", "localhost:9876"),
        ("host:http", "host:9876"),
        ("host:65536", "host:9876"),
        ("host:+80", "host:9876"),
        ("host:80/", "host:9876"),
        ("::1:9876", "[::1]:9876"),
        ("2001:db8::7", "[::1]:9876"),
        ("[::1:9876", "[::1]:9876"),
        ("[localhost]:9876", "[::1]:9876"),
        ("ho st:9876", "localhost:9876"),
        ("user@host:9876", "localhost:9876"),
        ("a,b:9876", "localhost:9876"),
        ("://x", "tcp://localhost:9876"),
        ("1a://x", "tcp://localhost:9876"),
        ("unix://app.sock", "unix:///run/app.sock"),
        ("unix://", "unix:///run/app.sock"),
        ("memory://", "memory://jobs"),
        ("netchan://host:1#AAAA", "ticket"),
    ] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(hint), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_address_or_an_error(text in ".{0,40}") {
        if let Ok(address) = parse(&text) {
            prop_assert_eq!(parse(&address.to_string()), Ok(address));
        }
    }

    #[test]
    fn any_host_and_port_come_back(host in "[a-z0-9.-]{1,20}", port: u16) {
        let address = Address::tcp(&host, port).unwrap();
        prop_assert_eq!(address.host_port(), Some((host.as_str(), port)));
        prop_assert_eq!(parse(&address.rest()), Ok(address));
    }
}
