//! One reader that never reads, beside others that do.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    measure::{Stopwatch, float, median},
    options::{Case, Plan},
    pair::World,
    program::Outcome,
    report::{Figure, Report, Target, Unit},
    traffic::{self, Flood},
};

/// What all readers but the stalled one get, in MB/s.
async fn rate(plan: &Plan, world: &World, stalled: bool) -> Outcome<f64> {
    let mut pair = world.pair().await?;
    let received = Arc::new(AtomicU64::new(0));
    let unread = match stalled {
        false => None,
        true => {
            let (source, sink) = pair.open().await?;
            Some((pair.a.host.spawn(traffic::write_for_ever(source)), sink))
        }
    };
    let floods: Vec<Flood> = pair
        .open_many(plan.others())
        .await?
        .into_iter()
        .map(|(a, b)| Flood::subchannel((&pair.a.host, a), (&pair.b.host, b), Arc::clone(&received)))
        .collect();
    // The stalled one fills what it may fill before the others are counted.
    tokio::time::sleep(plan.window() / 2).await;
    let watch = Stopwatch::start()?;
    let before = received.load(Ordering::Relaxed);
    tokio::time::sleep(plan.window()).await;
    let bytes = received.load(Ordering::Relaxed) - before;
    let spent = watch.stop()?;
    drop(floods);
    if let Some((writing, sink)) = unread {
        writing.abort();
        drop(sink);
    }
    // Not closed in order: that would wait for what nobody reads.
    Ok(float(bytes) / 1e6 / spent.time.as_secs_f64())
}

pub(super) async fn run(plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds() {
        with.push(rate(plan, world, true).await?);
        without.push(rate(plan, world, false).await?);
    }
    report.figure(
        Case::Stalled,
        &Figure {
            what: format!("{} readers beside one that stands still", plan.others()),
            unit: Unit::MegabytesPerSecond,
            ours: median(with),
            baseline: Some(("without it".to_owned(), median(without))),
            target: Target::RatioAtLeast(0.95),
        },
    );
    Ok(())
}
