//! A question of 64 bytes and its answer.

use std::sync::{Arc, atomic::AtomicU64};

use crate::{
    host::Host,
    measure::Latency,
    options::{Case, Plan},
    pair::{Pair, World},
    program::Outcome,
    report::{Figure, Report, Target, Unit},
    traffic::{self, Flood},
};

/// Which way bulk goes beside the echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Questions,
    BothWays,
}

impl Beside {
    fn floods(self) -> usize {
        match self {
            Beside::Nothing => 0,
            Beside::Questions => 1,
            Beside::BothWays => 2,
        }
    }
}

/// One round over a new subchannel.
async fn ours(plan: &Plan, pair: &mut Pair, beside: Beside) -> Outcome<Latency> {
    let mut floods = Vec::new();
    for direction in 0..beside.floods() {
        let (a, b) = pair.open().await?;
        let (a, b) = ((&*pair.a.host, a), (&*pair.b.host, b));
        let (from, to) = if direction == 0 { (a, b) } else { (b, a) };
        floods.push(Flood::subchannel(from, to, Arc::new(AtomicU64::new(0))));
    }
    let (asking, answering) = pair.open().await?;
    let answering = pair.b.host.spawn(traffic::answer(answering));
    let asking = pair.a.host.spawn(traffic::ask(asking, plan.trips(), plan.window()));
    let latency = Latency::of(asking.await??)?;
    drop(floods);
    answering.await??;
    Ok(latency)
}

/// The same over TCP, with a connection for each direction of bulk.
async fn tcp(plan: &Plan, hosts: &[Arc<Host>; 2], beside: Beside) -> Outcome<Latency> {
    let [a, b] = hosts;
    let mut floods = Vec::new();
    for direction in 0..beside.floods() {
        let (from, to) = if direction == 0 { (a, b) } else { (b, a) };
        let (source, sink) = traffic::tcp(from, to).await?;
        floods.push(Flood::tcp((from, source), (to, sink)));
    }
    let (asking, answering) = traffic::tcp(a, b).await?;
    let answering = b.spawn(traffic::answer(answering));
    let asking = a.spawn(traffic::ask(asking, plan.trips(), plan.window()));
    let latency = Latency::of(asking.await??)?;
    drop(floods);
    answering.await??;
    Ok(latency)
}

fn show(report: &mut Report, what: &str, ours: Latency, baseline: (&str, Latency), targets: [Target; 2]) {
    let (name, baseline) = baseline;
    let lines = [("median", ours.median, baseline.median), ("99th percentile", ours.tail, baseline.tail)];
    for ((which, ours, baseline), target) in lines.into_iter().zip(targets) {
        let figure = Figure {
            what: format!("{what}, {which}"),
            unit: Unit::Microseconds,
            ours,
            baseline: Some((name.to_owned(), baseline)),
            target,
        };
        report.figure(Case::Echo, &figure);
    }
}

pub(super) async fn run(plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    let mut pair = world.pair().await?;
    let mut crowded = world.pair().await?;
    let idle = crowded.open_many(plan.idle_beside()).await?;
    let hosts = Host::two(world.flavour)?;

    let (mut alone, mut beside_idle, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds() {
        alone.push(ours(plan, &mut pair, Beside::Nothing).await?);
        beside_idle.push(ours(plan, &mut crowded, Beside::Nothing).await?);
        plain.push(tcp(plan, &hosts, Beside::Nothing).await?);
    }
    let (alone, plain) = (Latency::over(&alone), Latency::over(&plain));
    show(report, "alone", alone, ("tokio TCP", plain), [Target::MoreAtMost(12.0), Target::None]);
    let what = format!("{} idle subchannels", idle.len());
    let targets = [Target::RatioAtMost(1.05), Target::None];
    show(report, &what, Latency::over(&beside_idle), ("alone", alone), targets);
    drop((idle, crowded));

    for (beside, what) in
        [(Beside::Questions, "beside bulk one way"), (Beside::BothWays, "beside bulk both ways")]
    {
        let (mut mine, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds() {
            mine.push(ours(plan, &mut pair, beside).await?);
            plain.push(tcp(plan, &hosts, beside).await?);
        }
        let (mine, plain) = (Latency::over(&mine), Latency::over(&plain));
        show(report, what, mine, ("tokio TCP beside TCP", plain), [Target::None, Target::AtMost(5000.0)]);
        report.note(
            Case::Echo,
            format_args!("{what}: {} round trips of ours, {} of TCP", mine.trips, plain.trips),
        );
    }
    Ok(())
}
