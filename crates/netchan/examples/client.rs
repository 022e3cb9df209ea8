//! Dials the ticket it is given, and works until there is nothing left to do.

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let session = netchan::dial(std::env::args().nth(1).ok_or("no ticket")?, Default::default()).await?;
    let (tasks, results) = (session.receiver::<String>("tasks").await?, session.sender("results").await?);
    while let Some(task) = tasks.recv().await? {
        results.send(format!("{task}: done")).await?;
    }
    session.close(std::time::Duration::from_secs(10)).await?;
    Ok(())
}
