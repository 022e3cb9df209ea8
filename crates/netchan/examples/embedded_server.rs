//! A server that carries its key: `cargo run --example embedded_server`, and `embedded_worker` elsewhere. Neither needs a file,
//! an argument or a variable; each can be given others (`Identity::lookup`).

use std::sync::Arc;

use netchan::{Config, Identity, PolicyFile, PolicySource, listen_and_serve};

/// Who may do what, in the program as well: the worker's key, and nothing but its work.
const POLICY: &str = include_str!("keys/policy.toml");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let identity = Identity::lookup()
        .file("server.identity")
        // These samples are in the repository, where everyone may read them. Keys of your own are not, and need no option.
        .embedded(netchan::embed_key!("examples/keys/server.key", readable_by_others))
        .find()?;
    let mut config = Config::with_identity(identity);
    config.policy = PolicySource::Policy(Arc::new(PolicyFile::parse(POLICY, "keys/policy.toml")?));
    let server = listen_and_serve("127.0.0.1:19876", config).await?;
    let (tasks, results) = (server.sender::<u64>("tasks", 8)?, server.receiver::<u64>("results", 8)?);
    println!("serving");
    for task in 1..=10 {
        tasks.send(task).await?;
        println!("{task} squared is {}", results.recv().await?.ok_or("the results ended")?);
    }
    server.shutdown(std::time::Duration::from_secs(5)).await?;
    Ok(())
}
