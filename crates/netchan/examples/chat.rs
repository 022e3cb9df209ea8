//! A chat: one broadcast that everyone sends into and receives from.
//!
//! ```text
//! cargo run -p netchan --example chat                     # the server: prints its ticket, leaves at the end of its input
//! cargo run -p netchan --example chat -- 'netchan…' anna  # says what it reads, prints what is said
//! ```

use std::time::Duration;

use netchan::{ChannelOptions, Config, RecvError, dial, listen_and_serve};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    who: String,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (None, _) => serve().await,
        (Some(ticket), who) => chat(&ticket, &who.unwrap_or_else(|| "somebody".to_owned())).await,
    }
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let options = ChannelOptions::<Line>::default().clients_may_send(true);
    let room = server.broadcast_with("room", 256, options)?;
    // Whoever comes reads this first.
    room.assign(Line { who: "server".to_owned(), text: "be kind".to_owned() }).await?;
    println!("{}", server.ticket());
    let mut input = BufReader::new(stdin()).lines();
    while let Some(text) = input.next_line().await? {
        room.send(Line { who: "server".to_owned(), text }).await?;
    }
    server.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

async fn chat(ticket: &str, who: &str) -> Result<(), Box<dyn std::error::Error>> {
    let session = dial(ticket, Config::default()).await?;
    let heard = session.receiver::<Line>("room").await?;
    let said = session.sender::<Line>("room").await?;
    let mut input = BufReader::new(stdin()).lines();
    loop {
        tokio::select! {
            line = heard.recv() => match line {
                Ok(Some(line)) => println!("{}: {}", line.who, line.text),
                Ok(None) => break,
                Err(RecvError::Lagged(lost)) => println!("… {lost} lines missed"),
                Err(error) => return Err(error.into()),
            },
            text = input.next_line() => match text? {
                Some(text) => said.send(Line { who: who.to_owned(), text }).await?,
                None => break,
            },
        }
    }
    session.close(Duration::from_secs(10)).await?;
    Ok(())
}
