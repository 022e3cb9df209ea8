//! A server that serves everything by one `select!` over its channel of channels: whatever clients open, under whatever name,
//! is met as an offer.
//!
//! ```text
//! cargo run -p netchan --example select               # the server: prints its ticket, and what it does
//! cargo run -p netchan --example select -- 'netchan…' # a client: has three words shouted, and sees two ticks
//! ```

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use netchan::{Config, OfferKind, Receiver, Sender, dial, listen_and_serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        None => serve().await,
        Some(ticket) => ask(&ticket).await,
    }
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    println!("{}", server.ticket());
    let mut events = server.events();
    let mut words: SelectAll<Receiver<String>> = SelectAll::new();
    let mut listeners: Vec<Sender<String>> = Vec::new();
    let mut clocks: Vec<Sender<u64>> = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut now = 0;
    let mut served = false;
    loop {
        tokio::select! {
            offer = server.recv() => {
                let Some(offer) = offer? else { break };
                println!("{} opens {}", offer.peer(), offer.name());
                let accepted = match (offer.name(), offer.kind()) {
                    ("words", OfferKind::PeerSends) => offer.accept_receiver(8).await.map(|from| words.push(from)),
                    ("shouts", OfferKind::PeerReceives) => offer.accept_sender().await.map(|to| listeners.push(to)),
                    ("ticks", OfferKind::PeerReceives) => offer.accept_sender().await.map(|to| clocks.push(to)),
                    _ => {
                        offer.refuse("there is no such thing here");
                        Ok(())
                    }
                };
                // What one client does wrong is nobody else's trouble.
                if let Err(error) = accepted {
                    eprintln!("{error}");
                }
                served = true;
            }
            Some(word) = words.next() => {
                let shout = match word {
                    Ok(word) => word.to_uppercase(),
                    Err(error) => {
                        eprintln!("{error}");
                        continue;
                    }
                };
                println!("{shout}");
                // Who does not listen loses it; nobody waits for anybody.
                listeners.retain(|listener| !listener.is_closed());
                listeners.iter().for_each(|listener| _ = listener.try_send(shout.clone()));
            }
            _ = ticks.tick() => {
                now += 1;
                clocks.retain(|clock| !clock.is_closed());
                clocks.iter().for_each(|clock| _ = clock.try_send(now));
            }
            Some(event) = events.recv() => {
                println!("{event}");
                if served && server.clients().is_empty() {
                    break;
                }
            }
        }
    }
    server.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

async fn ask(ticket: &str) -> Result<(), Box<dyn std::error::Error>> {
    let session = dial(ticket, Config::default()).await?;
    let shouts = session.receiver::<String>("shouts").await?;
    let words = session.sender::<String>("words").await?;
    let ticks = session.receiver::<u64>("ticks").await?;
    if let Err(error) = session.sender::<u64>("nonsense").await {
        println!("{error}");
    }
    for word in ["one", "two", "three"] {
        words.send(word.to_owned()).await?;
        println!("{}", shouts.recv().await?.ok_or("no shout")?);
    }
    let (first, second) = (ticks.recv().await?.ok_or("no tick")?, ticks.recv().await?.ok_or("no tick")?);
    println!("ticks rise: {}", first < second);
    session.close(Duration::from_secs(10)).await?;
    Ok(())
}
