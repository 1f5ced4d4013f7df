//! How to test a leader that loses: a clock that you turn, and a network that you cut.

use std::cell::RefCell;
use std::time::Duration;

use tenure::testing::TestBed;
use tenure::{Election, Session};

/// A leader as a service might have it: it pays bills, one a second, and notes who paid.
async fn pay_bills(
    election: &Election,
    who: &str,
    paid: &RefCell<Vec<(String, u64)>>,
    bed: &TestBed,
) {
    let ended = election
        .run(|term| async move {
            while term.check().is_ok() {
                paid.borrow_mut().push((who.to_owned(), term.token().get()));
                sleep(bed).await;
            }
        })
        .await;
    ended.expect("the store in memory needs no mending");
}

/// Waits on the bed's clock.
async fn sleep(bed: &TestBed) {
    let wake = tenure::core::clock::Clock::now(&**bed.clock()).elapsed + Duration::from_secs(1);
    while tenure::core::clock::Clock::now(&**bed.clock()).elapsed < wake {
        tokio::task::yield_now().await;
    }
}

async fn candidate(session: &Session) -> anyhow::Result<Election> {
    Ok(session.election("billing").stand().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let bed = TestBed::new();
    let (a, b) = (bed.session("a").await?, bed.session("b").await?);
    let (first, second) = (candidate(&a).await?, candidate(&b).await?);
    let paid: RefCell<Vec<(String, u64)>> = RefCell::default();

    let story = async {
        bed.advance(Duration::from_secs(20)).await;
        let leader = paid.borrow().last().cloned().expect("somebody leads");
        println!("{} leads (token {}); its network is cut", leader.0, leader.1);
        bed.freeze(&leader.0);
        bed.advance(Duration::from_secs(60)).await;
        let next = paid.borrow().last().cloned().expect("somebody leads");
        println!("{} leads (token {})", next.0, next.1);
        assert_ne!(leader.0, next.0, "the other one has taken over");
    };
    tokio::select! {
        () = pay_bills(&first, "a", &paid, &bed) => {}
        () = pay_bills(&second, "b", &paid, &bed) => {}
        () = story => {}
    }

    // No bill was paid by the old leader after the new one's first.
    let tokens: Vec<u64> = paid.borrow().iter().map(|(_, token)| *token).collect();
    assert!(tokens.is_sorted(), "two leaders at once: {tokens:?}");
    println!("{} bills, never two leaders at once", tokens.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_story_ends_well() -> anyhow::Result<()> {
        super::main()
    }
}
