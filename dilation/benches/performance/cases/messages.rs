//! Small messages, one way.

use bytes::Bytes;
use dilated::Subchannel;

use crate::{
    baseline::{self, Load},
    measure::{Spent, Stopwatch, float_of, median},
    options::{Case, Plan},
    pair::{Pair, World},
    program::Outcome,
    report::{Figure, Report, Target, Unit},
};

/// Bytes of a message.
const LENGTH: usize = 100;

async fn send(mut subchannel: Subchannel, count: usize) -> Outcome<Subchannel> {
    let message = Bytes::from(vec![0x5a; LENGTH]);
    for _ in 0..count {
        subchannel.send(message.clone()).await?;
    }
    Ok(subchannel)
}

async fn receive(mut subchannel: Subchannel, count: usize) -> Outcome<Subchannel> {
    for _ in 0..count {
        let message = subchannel.recv().await?.ok_or("the messages ended early")?;
        if message.len() != LENGTH {
            return Err(format!("a message has {} bytes", message.len()).into());
        }
    }
    Ok(subchannel)
}

async fn ours(pair: &mut Pair, count: usize) -> Outcome<Spent> {
    let (sender, receiver) = pair.open().await?;
    let watch = Stopwatch::start()?;
    let receiving = pair.b.host.spawn(receive(receiver, count));
    let sending = pair.a.host.spawn(send(sender, count));
    let receiver = receiving.await??;
    let spent = watch.stop()?;
    drop((sending.await??, receiver));
    Ok(spent)
}

pub(super) async fn run(plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    let cipher = world.cipher();
    let mut pair = world.pair().await?;
    let count = plan.messages();
    let per_second = |spent: &Spent| float_of(count) / spent.time.as_secs_f64();
    let (mut rates, mut baselines, mut cores) = (Vec::new(), Vec::new(), Vec::new());
    ours(&mut pair, count / 8).await?;
    for _ in 0..plan.rounds() {
        let spent = ours(&mut pair, count).await?;
        rates.push(per_second(&spent));
        cores.push(spent.cpu.as_secs_f64() / spent.time.as_secs_f64());
        let load = Load::Messages(LENGTH);
        baselines.push(per_second(&baseline::sealed(load.bytes(count), cipher, load)?));
    }
    pair.close().await?;
    let rate = median(rates);
    report.figure(
        Case::Messages,
        &Figure {
            what: format!("messages of {LENGTH} bytes one way"),
            unit: Unit::PerSecond,
            ours: rate,
            baseline: Some((format!("packed, TCP + {cipher}"), median(baselines))),
            target: Target::AtLeast(2e6),
        },
    );
    let cores = median(cores);
    report.note(
        Case::Messages,
        format_args!("{cores:.2} cores are busy: {:.0} ns of processor for each message", cores / rate * 1e9),
    );
    Ok(())
}
