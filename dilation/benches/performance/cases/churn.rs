//! Subchannels that come and go.

use super::child;
use crate::{
    measure::{float, float_of, median, now, resident},
    options::{Case, Plan},
    pair::{Pair, World},
    program::Outcome,
    report::{Figure, Report, Target, Unit},
};

/// What is opened at one end and closed at once by the other, by so many tasks, each of which does one after the other.
/// Gives the rate in subchannels a second, and the growth of memory between the first quarter and the last in bytes for each.
pub(super) async fn measure(world: &World, count: usize, at_once: usize) -> Outcome<[f64; 2]> {
    let mut pair = world.pair().await?;
    let (start, mut memory) = (now(), Vec::new());
    for _ in 0..4 {
        quarter(&mut pair, count / 4, at_once).await?;
        memory.push(resident()?);
    }
    let seconds = now().saturating_duration_since(start).as_secs_f64();
    pair.settled(0).await?;
    pair.close().await?;
    let [first, _, _, last] = memory[..] else { return Err("there are four quarters".into()) };
    let growth = float(last.saturating_sub(first)) / (float_of(count) * 0.75);
    Ok([float_of(count) / seconds, growth])
}

async fn quarter(pair: &mut Pair, count: usize, at_once: usize) -> Outcome<()> {
    let closing = async {
        for _ in 0..count / at_once * at_once {
            drop(pair.b.server.accept().await?);
        }
        Outcome::Ok(())
    };
    let opening = async {
        let tasks = Vec::from_iter((0..at_once).map(|_| {
            let client = pair.a.client.clone();
            pair.a.host.spawn(async move {
                for _ in 0..count / at_once {
                    if client.connect().await?.read_chunk().await?.is_some() {
                        return Err("a subchannel that should be closed has data".into());
                    }
                }
                Outcome::Ok(())
            })
        }));
        for task in tasks {
            task.await??;
        }
        Ok(())
    };
    tokio::try_join!(closing, opening)?;
    Ok(())
}

pub(super) fn run(plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    for at_once in [1, 1_000.min(plan.churn() / 8)] {
        let (mut rates, mut growths) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds().min(3) {
            let [rate, growth] = child(Case::Churn, world, [plan.churn(), at_once])?;
            rates.push(rate);
            growths.push(growth);
        }
        let what = if at_once == 1 { "one by one".to_owned() } else { format!("{at_once} at a time") };
        let mut show = |what, unit, ours| {
            let figure = Figure { what, unit, ours, baseline: None, target: Target::None };
            report.figure(Case::Churn, &figure);
        };
        show(format!("opened and closed, {what}"), Unit::PerSecond, median(rates));
        show(format!("memory kept of each, {what}"), Unit::Bytes, median(growths));
    }
    Ok(())
}
