//! Hosts two channels, hands out a task, prints its result.

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = netchan::listen_and_serve("127.0.0.1:0", Default::default()).await?;
    let (tasks, results) = (server.sender("tasks", 64)?, server.receiver::<String>("results", 64)?);
    println!("{}", server.ticket());
    tasks.send("paint the fence".to_owned()).await?;
    println!("{}", results.recv().await?.ok_or("no result")?);
    server.shutdown(std::time::Duration::from_secs(10)).await?;
    Ok(())
}
