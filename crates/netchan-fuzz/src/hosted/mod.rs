//! A queue with a queue of results, an honest client, and clients with the right keys who say anything: whatever they say, what is kept
//! for them is bounded, no honest value is handed out twice, and once they say nothing more, though they are there, the
//! honest client goes on.

mod honest;
mod hostile;
mod server;

use netchan_proto::limits::{STALLED_AFTER_MILLIS, UNUSED_AFTER_MILLIS};

use self::honest::Honest;
use self::hostile::Hostile;
use self::server::Server;
use crate::script::Script;

/// Steps of one run: enough for some channels to be opened, used, cut and closed.
const STEPS_MAX: usize = 150;

/// Values that the honest client sends, and gets back, once nobody says anything more.
const LAST_VALUES: u64 = 5;

/// Somebody who is there and does nothing loses one thing after another that others wait for: each channel in so long.
const CALM_MILLIS_MAX: u64 = 40 * (UNUSED_AFTER_MILLIS + 3 * STALLED_AFTER_MILLIS);

/// Every byte is a choice of what somebody does next.
///
/// # Panics
/// When the server panics, keeps more than its limits allow, hands an honest value out twice, or leaves the honest client
/// waiting.
pub fn hosted(data: &[u8]) {
    let mut script = Script::new(data);
    let mut server = Server::new(&mut script);
    let mut honest = Honest::new(&mut server);
    let mut hostile = [Hostile::new(&mut server, 1), Hostile::new(&mut server, 2)];
    for _ in 0..STEPS_MAX {
        if script.is_empty() {
            break;
        }
        match script.one_of(24) {
            0 => server.pass(u64::from(script.byte())),
            1 => server.pass(100 * u64::from(script.byte())),
            2 => honest.send(&mut server),
            3 => honest.receive(),
            4 => server.act(&mut script),
            action => {
                let one = &mut hostile[usize::from(script.flag())];
                one.act(&mut server, action - 5, &mut script);
            }
        }
        honest.exchange(&mut server);
        server.check();
    }
    // They are there, and that is all.
    let until = server.now() + CALM_MILLIS_MAX;
    honest.wants_more(LAST_VALUES);
    while !(honest.is_done() && server.is_empty()) {
        assert!(server.now() < until, "{}: the honest client waits: {server:?}", honest.progress());
        server.pass(50);
        hostile.iter_mut().for_each(|one| one.answer(&mut server));
        honest.send(&mut server);
        honest.receive();
        honest.exchange(&mut server);
        server.check();
    }
}
