//! A worker that carries its key and its ticket, for `embedded_server`.

use netchan::{Config, Identity, Ticket, dial};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let identity = Identity::lookup()
        .file("worker.identity")
        .embedded(netchan::embed_key!("examples/keys/worker.key", readable_by_others))
        .find()?;
    let ticket = Ticket::lookup()
        .given(std::env::args().nth(1))
        .embedded(netchan::embed_ticket!("examples/keys/server.ticket", readable_by_others))
        .find()?;
    let session = dial(ticket, Config::with_identity(identity)).await?;
    let (tasks, results) = (session.receiver::<u64>("tasks").await?, session.sender::<u64>("results").await?);
    while let Some(task) = tasks.recv().await? {
        results.send(task * task).await?;
    }
    session.close(std::time::Duration::from_secs(5)).await?;
    Ok(())
}
