//! A worker fleet: tasks first come, first served; each result committed with its acknowledgement.
//!
//! ```text
//! cargo run -p netchan --example fleet               # the server: prints its ticket
//! cargo run -p netchan --example fleet -- 'netchan…' # a worker; start several, kill some
//! ```

use std::time::Duration;

use netchan::{Config, dial, listen_and_serve};
use serde::{Deserialize, Serialize};

const TASKS: u64 = 200;

#[derive(Debug, Serialize, Deserialize)]
struct Task {
    number: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    number: u64,
    square: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        None => serve().await,
        Some(ticket) => work(&ticket).await,
    }
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender::<Task>("tasks", 16)?;
    let results = server.receiver::<Done>("results", 16)?;
    println!("{}", server.ticket());
    let feeding = tokio::spawn(async move {
        for number in 0..TASKS {
            tasks.send(Task { number }).await?;
        }
        // Workers hear of the end when everything has been acknowledged.
        tasks.close();
        Ok::<_, netchan::SendError<Task>>(())
    });
    let mut sum = 0;
    for _ in 0..TASKS {
        let (done, worker) = results.recv_from().await?.ok_or("the results ended early")?;
        println!("{} squared is {} ({worker})", done.number, done.square);
        sum += done.square;
    }
    feeding.await??;
    println!("the sum is {sum}, with {} redelivered", server.stats().redelivered);
    server.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

async fn work(ticket: &str) -> Result<(), Box<dyn std::error::Error>> {
    let session = dial(ticket, Config::default()).await?;
    let results = session.sender::<Done>("results").await?;
    let tasks = session.deliveries::<Task>("tasks").await?;
    while let Some(task) = tasks.recv().await? {
        let number = task.number;
        tokio::time::sleep(Duration::from_millis(10)).await;
        // Killed before this line, another worker gets the task; after it, the result is there once.
        task.ack_with(&results, Done { number, square: number * number }).await?;
    }
    session.close(Duration::from_secs(10)).await?;
    Ok(())
}
