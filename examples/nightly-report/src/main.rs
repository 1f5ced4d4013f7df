//! The README's example: a report that one of us sends, and a scheduler that one of us runs.

use std::time::Duration;

use tenure::{Attempt, FencingToken, Session};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".to_owned());
    run(&url, Duration::from_secs(1)).await
}

/// All of it; `patience` stands for how long the service lives if nobody presses ctrl-c.
async fn run(url: &str, patience: Duration) -> anyhow::Result<()> {
    let session = Session::open(url).await?;

    // Once, by one of us. The work is dropped if the lease is lost.
    match session.lease("nightly-report").try_acquire().await? {
        Attempt::Granted(lease) => {
            lease.run(|proof| send_report(proof.token())).await??;
            lease.release().await?;
        }
        Attempt::Refused(by) => println!("{by}"),
    }

    // One of us leads, until ctrl-c.
    let election = session.election("scheduler").advertise("http://10.0.0.7:8080").stand().await?;
    let lead = election.run(|term| async move {
        while term.check().is_ok() {
            schedule_next(term.token()).await;
        }
    });
    tokio::select! {
        ended = lead => ended?,
        _ = tokio::signal::ctrl_c() => {}
        () = tokio::time::sleep(patience) => {}
    } // the work is dropped first …
    session.close().await?; // … then everything is given back, in one write
    Ok(())
}

async fn send_report(token: FencingToken) -> anyhow::Result<()> {
    println!("the report is sent, under token {token}");
    Ok(())
}

async fn schedule_next(token: FencingToken) {
    println!("a job is scheduled, under token {token}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_runs_on_an_sqlite_file_and_gives_everything_back() -> anyhow::Result<()> {
        let directory = std::env::temp_dir().join(format!("tenure-example-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let url = format!("sqlite:{}?namespace=shop", directory.join("leases.db").display());
        for _ in 0..2 {
            run(&url, Duration::from_millis(300)).await?;
        }
        let session = Session::open(url).await?;
        for name in ["nightly-report", "scheduler"] {
            let attempt = session.lease(name).try_acquire().await?;
            let Attempt::Granted(lease) = attempt else { anyhow::bail!("{name} is still held") };
            assert!(lease.token().get() > 2);
        }
        session.close().await?;
        std::fs::remove_dir_all(directory)?;
        Ok(())
    }
}
