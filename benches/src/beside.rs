//! Ours beside the store's own client, and beside what people would use instead: turn by turn, so
//! that noise hits both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tenure::{Attempt, Session};

use crate::caller::{Caller, Held};
use crate::measure::{Calls, Report, Samples};

/// How many tasks call at once.
pub(crate) const TASKS: [usize; 3] = [1, 16, 64];
/// How many holds one beat renews.
const BEATS: [usize; 3] = [1, 100, 10_000];
/// A beat is one request; nobody acquires so many in one.
const ACQUIRED_AT_ONCE: usize = 500;
/// How often each beat is measured.
const BEAT_TURNS: usize = 10;
/// How often a waiter is woken.
const WAKES: usize = 30;
/// How long a waiter is given to settle before the name is released.
const SETTLE: Duration = Duration::from_millis(60);

/// A store's own client, doing the least that a write of one row or key takes.
pub(crate) trait Raw: Send + Sync + 'static {
    /// One write of the row or key of one task.
    fn write(&self, task: usize) -> impl Future<Output = Result<()>> + Send;

    /// Writes of the rows or keys `0..many`, in as few requests as the client can.
    fn write_many(&self, many: usize) -> impl Future<Output = Result<()>> + Send;
}

/// What people would use instead.
pub(crate) trait Peer: Send + Sync + 'static {
    /// Acquires the lock of one task and gives it back.
    fn pair(&self, task: usize) -> impl Future<Output = Result<()>> + Send;
}

/// Lets every task call once, at the same time.
async fn round<F, T>(calls: &mut Calls, tasks: usize, call: impl Fn(usize) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let started = Instant::now();
    let mut done = Vec::with_capacity(tasks);
    if tasks == 1 {
        // As one task calls: without another hop.
        done.push(calls.each.time(call(0)).await?);
    } else {
        let running: Vec<_> = (0..tasks)
            .map(|task| {
                let call = call(task);
                tokio::spawn(async move {
                    let started = Instant::now();
                    let done = call.await;
                    (started.elapsed(), done)
                })
            })
            .collect();
        for one in running {
            let (took, one) = one.await?;
            calls.each.add(took);
            done.push(one?);
        }
    }
    calls.rounds.add(started.elapsed());
    Ok(done)
}

/// Acquires, renewals and releases of one name a task, each beside one raw write a task.
pub(crate) async fn single<R: Raw>(
    report: &mut Report,
    store: &str,
    session: &Session,
    raw: &Arc<R>,
    turns: usize,
) -> Result<()> {
    let caller = Caller::new(session);
    for tasks in TASKS {
        let mut raws = Calls::default();
        let (mut acquired, mut renewed, mut released) =
            (Calls::default(), Calls::default(), Calls::default());
        // The first turns warm up connections and plans on both sides.
        let warm = turns / 10;
        for turn in 0..turns + warm {
            if turn == warm {
                raws = Calls::default();
                (acquired, renewed, released) =
                    (Calls::default(), Calls::default(), Calls::default());
            }
            write(&mut raws, tasks, raw).await?;
            let held = round(&mut acquired, tasks, |task| {
                let (caller, names) = (caller.clone(), [format!("task-{task}")]);
                async move { caller.acquire(&names).await }
            })
            .await?;
            let held: Arc<Vec<Vec<Held>>> = Arc::new(held);
            write(&mut raws, tasks, raw).await?;
            round(&mut renewed, tasks, |task| {
                let (caller, held) = (caller.clone(), Arc::clone(&held));
                async move { caller.renew(&held[task]).await }
            })
            .await?;
            write(&mut raws, tasks, raw).await?;
            round(&mut released, tasks, |task| {
                let (caller, held) = (caller.clone(), Arc::clone(&held));
                async move { caller.release(&held[task]).await }
            })
            .await?;
        }
        report.beside(store, "acquire", tasks, &acquired, &raws);
        report.beside(store, "renewal", tasks, &renewed, &raws);
        report.beside(store, "release", tasks, &released, &raws);
    }
    Ok(())
}

async fn write<R: Raw>(raws: &mut Calls, tasks: usize, raw: &Arc<R>) -> Result<()> {
    round(raws, tasks, |task| {
        let raw = Arc::clone(raw);
        async move { raw.write(task).await }
    })
    .await?;
    Ok(())
}

/// Beats of many holds, each beside as many raw writes.
pub(crate) async fn beats<R: Raw>(
    report: &mut Report,
    store: &str,
    session: &Session,
    raw: &Arc<R>,
) -> Result<()> {
    let caller = Caller::new(session);
    for many in BEATS {
        let names: Vec<String> = (0..many).map(|n| format!("many-{n}")).collect();
        let mut held = Vec::with_capacity(many);
        for some in names.chunks(ACQUIRED_AT_ONCE) {
            held.extend(caller.acquire(some).await?);
        }
        let (mut ours, mut raws) = (Calls::default(), Calls::default());
        for turn in 0..=BEAT_TURNS {
            if turn == 1 {
                (ours, raws) = (Calls::default(), Calls::default());
            }
            let started = Instant::now();
            raw.write_many(many).await?;
            once(&mut raws, started);
            let started = Instant::now();
            caller.renew(&held).await?;
            once(&mut ours, started);
        }
        for some in held.chunks(ACQUIRED_AT_ONCE) {
            caller.release(some).await?;
        }
        report.beside(store, &format!("beat of {many} holds"), 1, &ours, &raws);
    }
    Ok(())
}

fn once(calls: &mut Calls, started: Instant) {
    let took = started.elapsed();
    calls.each.add(took);
    calls.rounds.add(took);
}

/// A lease acquired and released as a user does it, beside a peer's lock.
pub(crate) async fn peer<P: Peer>(
    report: &mut Report,
    store: &str,
    session: &Session,
    peer: &Arc<P>,
    turns: usize,
) -> Result<()> {
    for tasks in TASKS {
        let (mut ours, mut theirs) = (Calls::default(), Calls::default());
        for turn in 0..turns + turns / 10 {
            if turn == turns / 10 {
                (ours, theirs) = (Calls::default(), Calls::default());
            }
            round(&mut theirs, tasks, |task| {
                let peer = Arc::clone(peer);
                async move { peer.pair(task).await }
            })
            .await?;
            round(&mut ours, tasks, |task| pair(session.clone(), task)).await?;
        }
        report.beside(store, "acquire and release", tasks, &ours, &theirs);
    }
    Ok(())
}

async fn pair(session: Session, task: usize) -> Result<()> {
    match session.lease(format!("pair-{task}")).try_acquire().await? {
        Attempt::Granted(lease) => Ok(lease.release().await?),
        Attempt::Refused(by) => bail!("{by}"),
    }
}

/// How long after a release is asked for its waiter has the name.
pub(crate) async fn wakes(report: &Report, holder: &Session, waiter: &Session) -> Result<()> {
    let mut wakes = Samples::default();
    for turn in 0..WAKES {
        let name = format!("wake-{turn}");
        let Attempt::Granted(held) = holder.lease(name.clone()).try_acquire().await? else {
            bail!("`{name}` is held")
        };
        let waiting = waiter.lease(name);
        let waiting = tokio::spawn(async move {
            let lease = waiting.acquire().await?;
            let granted = Instant::now();
            lease.release().await?;
            Ok::<_, tenure::Error>(granted)
        });
        tokio::time::sleep(SETTLE).await;
        let released = Instant::now();
        held.release().await?;
        wakes.add(waiting.await??.saturating_duration_since(released));
    }
    report.alone("a waiter has the name after a release", &wakes);
    Ok(())
}
