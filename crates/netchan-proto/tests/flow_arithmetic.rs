//! Window and Credit alone: what one grants is what the other may use, whatever the order of events.

use netchan_proto::flow::{Credit, Urgency, Window, WindowKind};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Send(u64),
    Deliver,
    Take,
    Tell,
    Hear,
    Reserve,
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => prop_oneof![0..50_u64, 0..5_000_u64].prop_map(Op::Send),
        3 => Just(Op::Deliver),
        3 => Just(Op::Take),
        1 => Just(Op::Tell),
        2 => Just(Op::Hear),
        1 => Just(Op::Reserve),
        1 => Just(Op::Release),
    ]
}

proptest! {
    #[test]
    fn flow_1_credit_and_window_agree(capacity in 1..9_u64, window_bytes in 1..3_000_u64, ops in vec(op(), 0..300)) {
        let mut window = Window::new(WindowKind::Fixed { capacity }, window_bytes, 2 * window_bytes);
        let mut credit = Credit::new(capacity, window_bytes);
        let (mut wire, mut buffer, mut told) = (Vec::new(), Vec::new(), Vec::new());
        let mut last = (capacity, window_bytes);
        for op in ops {
            match op {
                Op::Send(bytes) if credit.allows() => {
                    prop_assert!(credit.items() > 0 && credit.has_bytes());
                    credit.commit(bytes);
                    wire.push(bytes);
                }
                Op::Deliver if !wire.is_empty() => {
                    let bytes: u64 = wire.remove(0);
                    prop_assert!(window.receive(1, bytes, bytes).is_ok(), "FLOW-3: it was granted");
                    buffer.push(bytes);
                }
                Op::Take if !buffer.is_empty() => window.take(buffer.remove(0)),
                Op::Tell if window.urgency() > Urgency::None => {
                    let (_, taken, limit, limit_bytes) = window.tell();
                    prop_assert_eq!(limit, taken + capacity, "the capacity law");
                    prop_assert!((limit, limit_bytes) >= last, "FLOW-2: absolute and cumulative");
                    last = (limit, limit_bytes);
                    told.push((limit, limit_bytes));
                    prop_assert_eq!(window.urgency(), Urgency::None, "it has been told");
                }
                Op::Hear if !told.is_empty() => {
                    let (limit, limit_bytes) = told.remove(0);
                    credit.raise(limit, limit_bytes);
                    credit.raise(limit - 1, limit_bytes / 2);
                }
                Op::Reserve => {
                    let allowed = credit.allows();
                    prop_assert_eq!(credit.reserve(), allowed);
                }
                Op::Release if credit.reserved() > 0 => credit.release(),
                _ => {}
            }
            prop_assert!(credit.committed() + credit.reserved() <= credit.limit());
            prop_assert!(credit.committed() <= window.taken() + capacity, "the capacity law");
            prop_assert_eq!(window.received() - window.taken(), buffer.len() as u64);
            let blocked = !credit.allows() && credit.reserved() == 0 && wire.is_empty() && told.is_empty();
            if blocked && buffer.is_empty() {
                prop_assert!(window.urgency() >= Urgency::Soon, "FLOW-4: blocked, all taken, and nobody says so");
            }
        }
    }

    #[test]
    fn flow_3_what_was_not_granted_is_refused(capacity in 1..9_u64, extra in 1..5_u64, bytes in 0..100_u64) {
        let mut window = Window::new(WindowKind::Fixed { capacity }, 1_000, 1_000);
        let count = capacity + extra;
        prop_assert!(window.receive(count, count * bytes, bytes).is_err());
        prop_assert_eq!(window.received(), 0, "a refusal changes nothing");
        prop_assert!(window.receive(capacity, capacity * bytes, bytes).is_ok());
        prop_assert!(window.receive(1, 0, 0).is_err());
    }

    #[test]
    fn flow_5_one_message_may_overdraw_the_bytes(window_bytes in 1..1_000_u64, bytes in 0..1_000_000_u64) {
        let mut window = Window::new(WindowKind::Fixed { capacity: 8 }, window_bytes, window_bytes);
        let mut credit = Credit::new(8, window_bytes);
        prop_assert!(credit.allows());
        credit.commit(bytes);
        prop_assert!(window.receive(1, bytes, bytes).is_ok());
        prop_assert_eq!(credit.allows(), window.receive(1, 1, 1).is_ok());
    }

    #[test]
    fn flow_7_a_recall_never_takes_what_is_used(used in 0..5_u64, kept in 0..4_u64, limit in 0..20_u64) {
        let mut credit = Credit::new(8, u64::MAX);
        (0..used).for_each(|_| _ = credit.commit(1));
        (0..kept).for_each(|_| assert!(credit.reserve() || used + kept > 8));
        let floor = credit.committed() + credit.reserved();
        let left = credit.recall(limit);
        prop_assert_eq!(left, 8.min(limit.max(floor)));
        prop_assert_eq!(credit.items(), left - floor);
    }

    #[test]
    fn flow_6_the_window_grows_for_a_reader_that_keeps_up_and_no_further(rounds in 1..20_u32, keeps_up: bool) {
        let mut window = Window::new(WindowKind::Fixed { capacity: 1 << 20 }, 1_000, 16_000);
        let mut taken_bytes = 0;
        for _ in 0..rounds {
            while window.receive(1, 100, 100).is_ok() {}
            let last = window.received() - u64::from(!keeps_up);
            while window.taken() < last {
                window.take(100);
                taken_bytes += 100;
            }
            window.tell();
        }
        let size = window.limit_bytes() - taken_bytes;
        let grown = if keeps_up { (1_000 << rounds.min(4)).min(16_000) } else { 1_000 };
        prop_assert_eq!(size, grown);
    }
}
