use proptest::prelude::*;

use super::*;

fn hello() -> impl Strategy<Value = Hello> {
    let resume = any::<([u8; 16], u32, [u8; 24], [u8; 24])>().prop_map(|(id, epoch, first, second)| Resume {
        session_id: SessionId(id),
        last_epoch: Epoch(epoch),
        proof: std::array::from_fn(|i| if i < 24 { first[i] } else { second[i - 24] }),
    });
    (any::<u16>(), "\\PC{0,80}", any::<bool>(), any::<u64>(), proptest::option::of(resume)).prop_map(
        |(version, agent, aes_hardware, message_bytes_max, resume)| Hello {
            version,
            agent,
            aes_hardware,
            message_bytes_max,
            resume,
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let accepted = (any::<([u8; 16], u64, u32, bool, bool, u64, u32)>(), "\\PC{0,80}").prop_map(
        |((id, incarnation, epoch, aes, resumed, message_bytes_max, channels_max), agent)| {
            Welcome::Accepted(Accepted {
                session_id: SessionId(id),
                incarnation: Incarnation(incarnation),
                epoch: Epoch(epoch),
                aead: Aead::choose(aes, aes),
                resumed,
                message_bytes_max,
                channels_max,
                agent,
            })
        },
    );
    let refused = (any::<u16>(), "\\PC{0,80}")
        .prop_map(|(code, reason)| Welcome::Refused { code: RefusalCode::from_code(code), reason });
    prop_oneof![accepted, refused]
}

proptest! {
    #[test]
    fn hs_8_hello_round_trips_and_has_one_encoding(hello in hello(), extra in any::<u8>()) {
        let bytes = hello.encode().expect("short texts");
        prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
        for end in 0..bytes.len() {
            prop_assert_eq!(Hello::decode(&bytes[..end]), Err(HelloError::Truncated));
        }
        let longer = [&bytes[..], &[extra]].concat();
        prop_assert_eq!(Hello::decode(&longer), Err(HelloError::TrailingBytes));
    }

    #[test]
    fn hs_9_welcome_round_trips_and_has_one_encoding(welcome in welcome(), extra in any::<u8>()) {
        let bytes = welcome.encode().expect("short texts");
        prop_assert_eq!(Welcome::decode(&bytes), Ok(welcome));
        for end in 0..bytes.len() {
            prop_assert_eq!(Welcome::decode(&bytes[..end]), Err(HelloError::Truncated));
        }
        let longer = [&bytes[..], &[extra]].concat();
        prop_assert_eq!(Welcome::decode(&longer), Err(HelloError::TrailingBytes));
    }

    #[test]
    fn garbage_never_panics_and_what_decodes_encodes_to_itself(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(hello) = Hello::decode(&bytes) {
            prop_assert_eq!(hello.encode().expect("decoded"), bytes.clone());
        }
        if let Ok(welcome) = Welcome::decode(&bytes) {
            prop_assert_eq!(welcome.encode().expect("decoded"), bytes);
        }
    }
}

#[test]
fn texts_are_bounded_and_reasons_are_cut_between_characters() {
    let agent = "a".repeat(TEXT_BYTES_MAX + 1);
    let too_long = HelloError::TextTooLong { bytes: TEXT_BYTES_MAX + 1, max: TEXT_BYTES_MAX };
    let hello = Hello { version: 1, agent, aes_hardware: false, message_bytes_max: 0, resume: None };
    assert_eq!(hello.encode(), Err(too_long));

    let reason = format!("a{}", "é".repeat(TEXT_BYTES_MAX));
    let bytes = Welcome::Refused { code: RefusalCode::Denied, reason }.encode().expect("cut");
    match Welcome::decode(&bytes) {
        Ok(Welcome::Refused { reason, .. }) => assert_eq!(reason.len(), TEXT_BYTES_MAX - 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn undefined_values_are_rejected() {
    let hello = Hello { version: 1, agent: String::new(), aes_hardware: true, message_bytes_max: 0, resume: None };
    let mut bytes = hello.encode().expect("short");
    bytes[2] |= 0x80;
    assert_eq!(Hello::decode(&bytes), Err(HelloError::Undefined { value: 0x81 }));
    assert_eq!(Welcome::decode(&[7]), Err(HelloError::Undefined { value: 7 }));
}
