//! Configuration push: whoever comes gets what is set, then every change.
//!
//! ```text
//! cargo run -p netchan --example settings               # the server: prints its ticket, reads lines such as `colour=red`
//! cargo run -p netchan --example settings -- 'netchan…' # prints the settings, again and again, as they are
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use netchan::{ChannelOptions, Config, LossPolicy, RecvError, dial, listen_and_serve};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

type Setting = (String, String);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        None => serve().await,
        Some(ticket) => follow(&ticket).await,
    }
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let settings = server.broadcast::<Setting>("settings", 64)?;
    println!("{}", server.ticket());
    let mut all: BTreeMap<String, String> =
        BTreeMap::from([("colour".to_owned(), "blue".to_owned()), ("size".to_owned(), "3".to_owned())]);
    settings.set_assignments(all.clone().into_iter().collect())?;
    let mut input = BufReader::new(stdin()).lines();
    while let Some(line) = input.next_line().await? {
        let Some((key, value)) = line.split_once('=') else {
            eprintln!("not a setting: {line}");
            continue;
        };
        all.insert(key.to_owned(), value.to_owned());
        // For those who come later, all in one step; for those who are here, what has changed.
        settings.set_assignments(all.clone().into_iter().collect())?;
        settings.send((key.to_owned(), value.to_owned())).await?;
    }
    server.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

async fn follow(ticket: &str) -> Result<(), Box<dyn std::error::Error>> {
    let session = dial(ticket, Config::default()).await?;
    // A server that starts anew is subscribed to again.
    let options = || ChannelOptions::<Setting>::default().on_loss(LossPolicy::Drop);
    let mut settings = session.receiver_with("settings", options()).await?;
    let mut all = BTreeMap::new();
    loop {
        match settings.recv().await {
            Ok(Some((key, value))) => _ = all.insert(key, value),
            Ok(None) => break,
            // Everything comes again.
            Err(RecvError::Restarted) => all.clear(),
            // Something was missed: whoever subscribes anew gets everything first.
            Err(RecvError::Lagged(_)) => {
                settings = session.receiver_with("settings", options()).await?;
                all.clear();
            }
            Err(error) => return Err(error.into()),
        }
        println!("{all:?}");
    }
    Ok(())
}
