//! Strategies for frames.

use netchan_proto::id::ChannelId;
use netchan_proto::limits::CAPACITY_ITEMS_MAX;
use netchan_proto::wire::{
    Accept, Announce, Close, Frame, Mode, Open, OpenFlow, Pos, Purpose, Recall, Refuse, RefuseCode,
    WindowUpdate, Yield,
};
use proptest::prelude::*;

fn id() -> impl Strategy<Value = ChannelId> {
    prop_oneof![1..10_u32, 1..=u32::MAX].prop_map(ChannelId)
}

fn int() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, any::<u64>(), Just(u64::MAX)]
}

fn capacity() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, 0..=CAPACITY_ITEMS_MAX]
}

fn text(max: usize) -> impl Strategy<Value = String> {
    prop_oneof!["[a-zé☃]{0,12}", Just("x".repeat(max)), Just("é".repeat(max / 2))]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{1,20}", Just("n".repeat(255))]
}

fn open() -> impl Strategy<Value = Open> {
    let texts = (name(), text(1_024), text(1_024));
    let purpose = prop_oneof![
        any::<bool>().prop_map(|receives| {
            (if receives { OpenFlow::OpenerReceives } else { OpenFlow::OpenerSends }, Purpose::Values)
        }),
        Just((OpenFlow::OpenerReceives, Purpose::Deliveries)),
        id().prop_map(|of| (OpenFlow::OpenerSends, Purpose::Acks { of })),
        id().prop_map(|of| (OpenFlow::OpenerReceives, Purpose::Outcomes { of })),
        (0..=2_u8).prop_map(|when_slow| (OpenFlow::OpenerReceives, Purpose::Subscription { when_slow })),
    ];
    (id(), texts, any::<Option<[u8; 16]>>(), purpose, capacity(), int()).prop_map(
        |(id, (name, label, codec), fingerprint, (flow, purpose), capacity, limit_bytes)| Open {
            id,
            name,
            label,
            codec,
            fingerprint,
            flow,
            purpose,
            capacity,
            limit_bytes,
        },
    )
}

fn accept() -> impl Strategy<Value = Accept> {
    let mode = prop_oneof![
        (1..=CAPACITY_ITEMS_MAX).prop_map(|capacity| (Mode::Credit, capacity)),
        Just((Mode::Rendezvous, 0)),
        capacity().prop_map(|capacity| (Mode::Lease, capacity)),
        capacity().prop_map(|capacity| (Mode::Demand, capacity)),
        (1..=CAPACITY_ITEMS_MAX).prop_map(|capacity| (Mode::Cast, capacity)),
    ];
    (id(), mode, int()).prop_map(|(id, (mode, capacity), limit_bytes)| Accept {
        id,
        mode,
        capacity,
        limit_bytes,
    })
}

fn refuse() -> impl Strategy<Value = Refuse> {
    let code = prop_oneof![
        Just(RefuseCode::NotAvailable),
        Just(RefuseCode::Denied),
        Just(RefuseCode::TypeMismatch),
        Just(RefuseCode::CodecMismatch),
        Just(RefuseCode::WrongDirection),
        Just(RefuseCode::LimitReached),
        Just(RefuseCode::Declined),
    ];
    (id(), code, text(1_024)).prop_map(|(id, code, reason)| Refuse { id, code, reason })
}

fn announce() -> impl Strategy<Value = Announce> {
    (name(), text(1_024), text(1_024), any::<[bool; 3]>(), capacity()).prop_map(
        |(name, label, codec, [may_receive, may_send, hosted], capacity)| Announce {
            name,
            label,
            codec,
            may_receive,
            may_send,
            capacity,
            hosted,
        },
    )
}

fn close() -> impl Strategy<Value = Close> {
    (id(), int(), any::<u16>(), text(1_024)).prop_map(|(id, final_seq, code, reason)| Close {
        id,
        final_seq,
        code,
        reason,
    })
}

fn channel_frame() -> impl Strategy<Value = Frame> {
    let four = (int(), int(), int(), int());
    (id(), any::<u32>(), four, int(), any::<bool>(), 0..8_u8).prop_map(
        |(id, generation, (a, b, c, d), e, flag, which)| match which {
            0 => Frame::Window(WindowUpdate {
                id,
                generation,
                received: a,
                taken: b,
                limit: c,
                limit_bytes: d,
            }),
            1 => Frame::Want { id, limit: a },
            2 => Frame::Poll { id },
            3 => Frame::Recall(Recall { id, generation, limit: a, rewind: flag }),
            4 => Frame::Yield(Yield { id, generation, limit: a, committed: b }),
            5 => Frame::Withdraw { id, seq: a },
            6 => Frame::Withdrawn { id, seq: a, withdrawn: flag },
            _ => Frame::Pos(Pos {
                id,
                generation,
                next_expected: a,
                taken: b,
                limit: c,
                limit_bytes: d,
                committed: e,
            }),
        },
    )
}

/// Every frame there is.
pub fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<[u8; 16]>(), any::<u8>()).prop_map(|(bytes, fill)| {
            let mut mac = [fill; 48];
            mac[..16].copy_from_slice(&bytes);
            Frame::Confirm { mac }
        }),
        open().prop_map(Frame::Open),
        accept().prop_map(Frame::Accept),
        refuse().prop_map(Frame::Refuse),
        announce().prop_map(Frame::Announce),
        close().prop_map(Frame::Close),
        close().prop_map(Frame::Reset),
        channel_frame(),
        channel_frame(),
        channel_frame(),
        int().prop_map(|nonce| Frame::Ping { nonce }),
        int().prop_map(|nonce| Frame::Pong { nonce }),
        (any::<u16>(), text(1_024)).prop_map(|(code, reason)| Frame::GoAway { code, reason }),
    ]
}
