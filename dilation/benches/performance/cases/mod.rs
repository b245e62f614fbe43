//! The cases. Each measures ours and its baseline in turns, so that a disturbance hits both.

mod allocations;
mod bulk;
mod churn;
mod echo;
mod idle;
mod messages;
mod stalled;

use std::{env, process::Command};

use dilated::Dialect;

use crate::{
    options::{Case, GED, Plan},
    pair::World,
    program::Outcome,
    report::Report,
};

/// Runs one.
pub(crate) async fn run(case: Case, plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    match case {
        Case::Bulk => bulk::rate(plan, world, report).await,
        Case::Cpu => bulk::cpu(plan, world, report).await,
        Case::Streams => bulk::streams(plan, world, report).await,
        Case::Echo => echo::run(plan, world, report).await,
        Case::Messages => messages::run(plan, world, report).await,
        Case::Idle => idle::run(plan, world, report),
        Case::Churn => churn::run(plan, world, report),
        Case::Stalled => stalled::run(plan, world, report).await,
        Case::Allocations => allocations::run(plan, world, report).await,
    }
}

/// The argument that makes this program do one measurement of memory for [`child`].
pub(crate) const CHILD: &str = "--child";

/// Measures in a process of its own, since an allocator keeps what others have freed. Gives the numbers that it prints.
fn child<const IN: usize, const OUT: usize>(
    case: Case,
    world: &World,
    counts: [usize; IN],
) -> Outcome<[f64; OUT]> {
    let output = Command::new(env::current_exe()?)
        .args((world.dialect == Dialect::Ged).then_some(GED))
        .args(["--runtime", world.flavour.name(), CHILD, &case.to_string()])
        .args(counts.map(|count| count.to_string()))
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers = said.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>();
    match (output.status.success(), numbers.ok().and_then(|numbers| numbers.try_into().ok())) {
        (true, Some(numbers)) => Ok(numbers),
        _ => Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// The other side of [`child`].
pub(crate) async fn measure(case: Case, counts: &[usize], world: &World) -> Outcome<Vec<f64>> {
    match (case, counts) {
        (Case::Idle, [count]) => Ok(vec![idle::measure(world, *count).await?]),
        (Case::Churn, [count, at_once]) => Ok(churn::measure(world, *count, *at_once).await?.to_vec()),
        _ => Err(format!("{case} with {counts:?} is not measured in a process of its own").into()),
    }
}
