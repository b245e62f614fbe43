//! What one transfer over one subchannel asks of the allocator.

use crate::{
    baseline::{self, Load},
    measure::{Spent, float, median},
    options::{Case, Plan},
    pair::World,
    program::Outcome,
    report::{Figure, Report, Target, Unit},
    traffic::transfer,
};

pub(super) async fn run(plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    let (bytes, cipher) = (plan.bytes(), world.cipher());
    let (mut ours, mut sealed) = (Vec::new(), Vec::new());
    let mut pair = world.pair().await?;
    // The first transfer makes buffers that the others use again.
    transfer(&mut pair, bytes / 8, 1).await?;
    for _ in 0..plan.rounds() {
        ours.push(transfer(&mut pair, bytes, 1).await?);
        sealed.push(baseline::sealed(bytes, cipher, Load::Bulk)?);
    }
    pair.close().await?;
    if sealed.iter().any(|spent| spent.allocated.times == 0) {
        return Err("this program's allocator does not count".into());
    }
    let mut line = |what: &str, unit, count: fn(&Spent) -> u64| {
        let over = |spent: &[Spent]| {
            median(spent.iter().map(|spent| float(count(spent)) / (float(bytes) / 1e6)).collect())
        };
        let figure = Figure {
            what: format!("{what}, both ends together, {cipher}"),
            unit,
            ours: over(&ours),
            baseline: Some((format!("TCP + {cipher}"), over(&sealed))),
            target: Target::None,
        };
        report.figure(Case::Allocations, &figure);
    };
    line("allocations", Unit::PerMegabyte, |spent| spent.allocated.times);
    line("bytes allocated", Unit::BytesPerMegabyte, |spent| spent.allocated.bytes);
    Ok(())
}
