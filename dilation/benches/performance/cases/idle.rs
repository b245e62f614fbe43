//! Subchannels that do nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use dilated::Subchannel;
use futures::task::noop_waker;
use tokio::io::{AsyncRead, ReadBuf};

use super::child;
use crate::{
    measure::{float, float_of, median, resident},
    options::{Case, Plan},
    pair::World,
    program::Outcome,
    report::{Figure, Report, Target, Unit},
};

/// Opened and closed before the measurement, so that nothing counts that is made once.
const WARM_UP: usize = 1_000;

/// Leaves a reader waiting at this end.
fn park(subchannel: &mut Subchannel) -> Outcome<()> {
    let waker = noop_waker();
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    match Pin::new(subchannel).poll_read(&mut Context::from_waker(&waker), &mut buffer) {
        Poll::Pending => Ok(()),
        Poll::Ready(_) => Err("an idle subchannel had something to read".into()),
    }
}

/// The resident memory that each subchannel takes at each end, in bytes.
pub(super) async fn measure(world: &World, count: usize) -> Outcome<f64> {
    let mut pair = world.pair().await?;
    drop(pair.open_many(WARM_UP).await?);
    pair.settled(0).await?;
    let before = resident()?;
    let mut subchannels = pair.open_many(count).await?;
    for (ours, theirs) in &mut subchannels {
        park(ours)?;
        park(theirs)?;
    }
    // What is on its way belongs to no idle subchannel.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let bytes = float(resident()?.saturating_sub(before)) / float_of(count) / 2.0;
    drop(subchannels);
    pair.settled(0).await?;
    pair.close().await?;
    Ok(bytes)
}

pub(super) fn run(plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds() {
        let [bytes] = child(Case::Idle, world, [plan.idle()])?;
        rounds.push(bytes);
    }
    report.figure(
        Case::Idle,
        &Figure {
            what: format!("each of {}, at each end", plan.idle()),
            unit: Unit::Bytes,
            ours: median(rounds),
            baseline: None,
            target: Target::AtMost(256.0),
        },
    );
    Ok(())
}
