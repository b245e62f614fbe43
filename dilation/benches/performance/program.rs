//! What the benchmark programs have in common: the run.

use std::error::Error;

use crate::{
    cases,
    options::{Case, Plan},
    pair::World,
    report::Report,
};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures those of the program's `own` cases that the command line names, or all of them.
pub(crate) fn run(own: &[Case]) -> Outcome<()> {
    let plan = Plan::from_arguments(own)?;
    // Only waits for what happens on the hosts.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let world = World::start(plan.flavour, plan.dialect).await?;
        if let Some((case, counts)) = &plan.child {
            let numbers = cases::measure(*case, counts, &world).await?;
            numbers.iter().for_each(|number| println!("{number}"));
            return Ok(());
        }
        if plan.cases.is_empty() {
            return Ok(());
        }
        let mut report = Report::new(plan.markdown);
        report.begin(&plan, &world.probe().await?);
        for case in &plan.cases {
            cases::run(*case, &plan, &world, &mut report).await.map_err(|e| format!("{case}: {e}"))?;
        }
        Ok(())
    })
}
