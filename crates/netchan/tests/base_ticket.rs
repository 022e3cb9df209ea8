//! Tickets: whole or refused.

use netchan::address::Address;
use netchan::identity::{AccessSecret, Identity, ServerPin};
use netchan::ticket::{AdvertiseError, TICKET_ADDRESSES_MAX, Ticket, TicketError, advertised_addresses};
use proptest::prelude::*;

fn addresses(texts: &[&str]) -> Vec<Address> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn same(a: &Ticket, b: &Ticket) -> bool {
    a.addresses() == b.addresses()
        && a.server_pin() == b.server_pin()
        && a.access_secret().map(AccessSecret::expose) == b.access_secret().map(AccessSecret::expose)
}

const MANY: [&str; 6] = [
    "10.0.0.7:9876",
    "[2001:db8::7]:9876",
    "[fe80::1%eth0]:1",
    "unix:///run/my app,1#%41.sock ",
    "memory://jobs",
    "foo://any/thing?x=1&y=ü",
];

#[test]
fn whole_tickets_come_back() {
    let identity = Identity::generate();
    let ticket = Ticket::new(addresses(&MANY), &identity).unwrap();
    let text = ticket.to_string();
    assert!(
        text.starts_with(
            "netchan://10.0.0.7:9876,[2001:db8::7]:9876,[fe80::1%25eth0]:1,unix:///run/my%20app%2C1%23%2541.sock"
        ),
        "{text}"
    );
    let back: Ticket = format!("  {text}\n").parse().unwrap();
    assert!(same(&ticket, &back));
    assert_eq!(back.server_pin(), identity.server_pin());

    let public = ticket.clone().pin_only();
    assert!(public.access_secret().is_none());
    assert!(same(&public, &public.to_string().parse().unwrap()));
    let moved = back.with_addresses(addresses(&["proxy.example.org:1"])).unwrap();
    assert_eq!(moved.access_secret(), Some(identity.access_secret()));

    let json = serde_json::to_string(&ticket).unwrap();
    assert!(same(&ticket, &serde_json::from_str(&json).unwrap()));
    assert!(serde_json::from_str::<Ticket>("\"netchan://\"").is_err());
}

#[test]
fn the_form_is_frozen() {
    let ticket = Ticket::from_parts(
        addresses(&["localhost:9876"]),
        ServerPin([1; 32]),
        Some(AccessSecret::new([2; 32])),
    );
    assert_eq!(ticket.unwrap().to_string(), FROZEN);
}

const FROZEN: &str = "netchan://localhost:9876#\
    AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgJnKAV4";

#[test]
fn a_typo_at_any_place_is_noticed() {
    let ticket = Ticket::new(addresses(&MANY), &Identity::generate()).unwrap();
    for text in [ticket.to_string(), ticket.pin_only().to_string()] {
        for at in 0..text.len() {
            for wrong in ["A", "b", "7", "-", "_", ",", "#", "%", " ", "é"] {
                let typo = format!("{}{wrong}{}", &text[..at], &text[at + 1..]);
                assert!(typo == text || typo.parse::<Ticket>().is_err(), "{wrong:?} at {at} passed");
                let inserted = format!("{}{wrong}{}", &text[..at], &text[at..]);
                assert!(inserted.trim() == text || inserted.parse::<Ticket>().is_err());
            }
            assert!(text[..at].parse::<Ticket>().is_err(), "cut at {at} passed");
            let missing = format!("{}{}", &text[..at], &text[at + 1..]);
            assert!(missing.parse::<Ticket>().is_err(), "without {at} passed");
        }
    }
}

#[test]
fn errors_tell_the_causes_apart() {
    let ticket = Ticket::new(addresses(&["a:1"]), &Identity::generate()).unwrap();
    let text = ticket.to_string();
    let error = |text: &str| text.parse::<Ticket>().unwrap_err();
    assert_eq!(error(""), TicketError::NotATicket);
    assert_eq!(error("localhost:9876"), TicketError::NotATicket);
    assert_eq!(error("https://example.org/#x"), TicketError::NotATicket);
    assert_eq!(error("netchan://a:1"), TicketError::Truncated);
    assert_eq!(error("netchan://a:1#"), TicketError::Truncated);
    assert_eq!(error(&text[..text.len() - 8]), TicketError::Truncated);
    assert_eq!(error(&text.replace("a:1", "b:1")), TicketError::Typo);
    // The code starts with the version byte: "AQ…" is 1, "Ag…" is 2.
    assert_eq!(error(&FROZEN.replacen("#AQ", "#Ag", 1)), TicketError::NewerVersion { version: 2 });
    assert_eq!(error(&format!("netchan://{}", "a".repeat(100_000))), TicketError::TooLong);
    let new = |addresses| Ticket::new(addresses, &Identity::generate()).unwrap_err();
    assert_eq!(new(Vec::new()), TicketError::NoAddress);
    let many = vec![Address::tcp("a", 1).unwrap(); TICKET_ADDRESSES_MAX + 1];
    assert_eq!(new(many), TicketError::TooManyAddresses { count: TICKET_ADDRESSES_MAX + 1 });
    assert_eq!(new(vec![Address::tcp(&"a".repeat(20_000), 1).unwrap()]), TicketError::TooLong);
}

#[test]
fn debug_keeps_the_secret() {
    let ticket = Ticket::new(addresses(&["a:1"]), &Identity::generate()).unwrap();
    let (debug, text) = (format!("{ticket:?}"), ticket.to_string());
    assert!(debug.contains("SHA256:") && debug.contains("a:1"), "{debug}");
    let code = text.split_once('#').unwrap().1;
    assert!((0..code.len() - 8).all(|at| !debug.contains(&code[at..at + 8])));
}

#[test]
fn what_is_advertised() {
    let listening = addresses(&["0.0.0.0:9876", "unix:///run/a.sock"]);
    let advertise = |entries: &[&str]| {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        advertised_addresses(&listening, &entries)
    };
    let given = advertise(&["a.example.org", "::1", "[::1]", "b:1", "unix:///x"]).unwrap();
    assert_eq!(given, addresses(&["a.example.org:9876", "[::1]:9876", "b:1", "unix:///x"]));
    assert!(matches!(advertise(&["b:http"]), Err(AdvertiseError::Invalid { .. })));
    assert!(matches!(advertise(&["a b"]), Err(AdvertiseError::Invalid { .. })));
    let nowhere = advertised_addresses(&listening[1..], &["a".to_owned()]);
    assert!(matches!(nowhere, Err(AdvertiseError::NoPort { .. })));

    let found = advertise(&[]).unwrap();
    assert!(found.len() >= 2 && found.contains(&listening[1]), "{found:?}");
    assert!(found.iter().all(|address| address.ip().is_none_or(|ip| !ip.is_unspecified())));
    assert!(Ticket::new(found, &Identity::generate()).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_a_ticket_or_an_error(text in "(netchan://)?.{0,60}(#[A-Za-z0-9_-]{0,100})?") {
        let _ = text.parse::<Ticket>();
    }

    #[test]
    fn any_parts_come_back(pin: [u8; 32], secret: Option<[u8; 32]>, rest in ".{0,40}", scheme in "[a-z][a-z0-9]{0,5}x") {
        let address: Address = format!("{scheme}://{}", rest.trim()).parse().unwrap();
        let ticket = Ticket::from_parts(vec![address], ServerPin(pin), secret.map(AccessSecret::new)).unwrap();
        prop_assert!(same(&ticket, &ticket.to_string().parse().unwrap()));
    }
}
