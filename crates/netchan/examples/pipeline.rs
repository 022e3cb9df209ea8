//! A pipeline of three processes, as in Go: numbers, their squares, the sum.
//!
//! ```text
//! cargo run -p netchan --example pipeline                      # the source, and the server of both channels
//! cargo run -p netchan --example pipeline -- 'netchan…' square # the stage; start as many as there is work for
//! cargo run -p netchan --example pipeline -- 'netchan…' sum    # the end of the pipe
//! ```

use std::time::Duration;

use netchan::{Config, dial, listen_and_serve};

const NUMBERS: u64 = 1_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next().as_deref()) {
        (None, _) => source().await,
        (Some(ticket), Some("square")) => square(&ticket).await,
        (Some(ticket), Some("sum")) => sum(&ticket).await,
        _ => Err("say `square` or `sum` behind the ticket".into()),
    }
}

async fn source() -> Result<(), Box<dyn std::error::Error>> {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let numbers = server.sender::<u64>("numbers", 8)?;
    // This process uses neither end of the second channel: it only hosts it.
    let (squares, _) = server.channel::<u64>("squares", 8)?;
    println!("{}", server.ticket());
    for n in 1..=NUMBERS {
        numbers.send(n).await?;
    }
    numbers.close();
    // Every stage has taken its last number, sent its square, and left; then nothing more can come.
    while server.clients().iter().filter(|client| client.is_connected()).count() > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    squares.close();
    server.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

async fn square(ticket: &str) -> Result<(), Box<dyn std::error::Error>> {
    let session = dial(ticket, Config::default()).await?;
    let (numbers, squares) =
        (session.receiver::<u64>("numbers").await?, session.sender::<u64>("squares").await?);
    while let Some(n) = numbers.recv().await? {
        squares.send(n * n).await?;
    }
    session.close(Duration::from_secs(10)).await?;
    Ok(())
}

async fn sum(ticket: &str) -> Result<(), Box<dyn std::error::Error>> {
    let session = dial(ticket, Config::default()).await?;
    let squares = session.receiver::<u64>("squares").await?;
    let mut sum = 0;
    while let Some(n) = squares.recv().await? {
        sum += n;
    }
    println!("{sum}");
    Ok(())
}
