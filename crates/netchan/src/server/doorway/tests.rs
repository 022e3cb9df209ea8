//! Who is here, who goes, and who waits outside.

use super::*;

fn doorway(half_open_max: usize, per_address: usize) -> Arc<Doorway> {
    Doorway::new(&Limits {
        half_open_max,
        half_open_per_address_max: per_address,
        half_open_exempt: vec!["10.9.9.9".parse().unwrap()],
        ..Limits::default()
    })
}

fn is_away(visitor: &mut HalfOpen) -> bool {
    visitor.dropped.try_recv() != Err(oneshot::error::TryRecvError::Empty)
}

fn stay(visitors: &mut [HalfOpen]) -> usize {
    visitors.iter_mut().filter_map(|visitor| (!is_away(visitor)).then_some(())).count()
}

#[tokio::test(start_paused = true)]
async fn no_more_are_here_than_may_be_and_the_quick_are_never_drawn() {
    let doorway = doorway(100, 1_000);
    let mut strangers: Vec<HalfOpen> = Vec::new();
    for n in 0..2_000 {
        strangers.retain_mut(|stranger| !is_away(stranger));
        doorway.room().await;
        strangers.push(doorway.enter(&format!("10.0.{}.{}:1", n / 256, n % 256)));
        // An honest client comes, and is let in while others come.
        doorway.room().await;
        let mut honest = doorway.enter("192.0.2.1:1");
        tokio::time::advance(Duration::from_millis(10)).await;
        assert!(!is_away(&mut honest), "a quick one was sent away");
        drop(honest.let_in());
        assert!(doorway.inside.lock().entries.len() <= 100);
    }
    drop(strangers);
    let inside = doorway.inside.lock();
    assert!(inside.entries.is_empty() && inside.places.is_empty() && inside.per_source.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_source_has_its_own_bound_and_some_have_none() {
    let doorway = doorway(1_000, 10);
    let mut crowd: Vec<_> = (0..50).map(|n| doorway.enter(&format!("[2001:db8::{n:x}]:7"))).collect();
    let mut other = doorway.enter("[2001:db8:1::1]:7");
    let mut exempt: Vec<_> = (0..50).map(|n| doorway.enter(&format!("[::ffff:10.9.9.9]:{n}"))).collect();
    let mut local: Vec<_> = (0..50).map(|_| doorway.enter("unix")).collect();
    assert_eq!(stay(&mut crowd), 50, "all are quick so far");
    tokio::time::advance(QUICK_MAX).await;
    let mut late = [doorway.enter("[2001:db8::ffff]:7"), doorway.enter("10.9.9.9:1"), doorway.enter("unix")];
    assert_eq!((stay(&mut crowd), stay(&mut late)), (9, 3));
    assert!(!is_away(&mut other));
    assert_eq!((stay(&mut exempt), stay(&mut local)), (50, 50));
}

#[tokio::test(start_paused = true)]
async fn sessions_leave_no_room_to_strangers() {
    let doorway = Doorway::new(&Limits { connections_max: Some(8), ..Limits::default() });
    let inside: Vec<_> = (0..7).map(|_| doorway.enter("unix").let_in()).collect();
    let mut visitors: Vec<HalfOpen> = Vec::new();
    for _ in 0..20 {
        visitors.retain_mut(|visitor| !is_away(visitor));
        // The one that is here leaves when its time is over, or the lot falls on it.
        tokio::select! {
            () = doorway.room() => visitors.push(doorway.enter("unix")),
            () = tokio::time::sleep(QUICK_MAX * 2) => {}
        }
        assert!(doorway.open.count.load(Ordering::SeqCst) <= 8);
    }
    drop((inside, visitors));
    assert_eq!(doorway.connected.load(Ordering::Relaxed), 0);
    assert_eq!(doorway.open.count.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn with_sessions_alone_there_is_nobody_to_wait_for() {
    let doorway = doorway(100, 100);
    let sessions: Vec<_> = (0..5).map(|_| doorway.enter("unix").let_in()).collect();
    doorway.be_content();
    doorway.room().await;
    // One more, as long as there may be none, and after a while as many as ever.
    let stranger = doorway.enter("unix");
    assert!(!doorway.has_room());
    assert_eq!(doorway.connections_max(), 6);
    tokio::time::advance(CONTENT_FOR).await;
    assert!(doorway.has_room() && doorway.connections_max() > 6);
    drop((sessions, stranger));
}

#[test]
fn lots_are_drawn_ever_more_often() {
    assert!(!is_drawn(50, 100, 0.0));
    assert!(is_drawn(51, 100, 0.019) && !is_drawn(51, 100, 0.021));
    assert!(is_drawn(75, 100, 0.48) && !is_drawn(75, 100, 0.5));
    assert!(is_drawn(100, 100, 0.97) && is_drawn(101, 100, 1.0 - f64::EPSILON));
    assert!(is_drawn(2, 1, 0.99) && !is_drawn(1, 1, 0.0), "nobody is drawn who is alone");
}
