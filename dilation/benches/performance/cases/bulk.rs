//! One transfer over one subchannel or over many: its rate, and what it costs the processor.

use crate::{
    baseline::{self, Cipher, Load},
    measure::{Spent, median},
    options::{Case, Plan},
    pair::{Pair, World},
    program::Outcome,
    python,
    report::{Figure, Report, Target, Unit},
    traffic::transfer,
};

/// One transfer of each kind, several times.
#[derive(Debug)]
struct Transfers {
    cipher: Cipher,
    ours: Vec<Spent>,
    sealed: Vec<Spent>,
    raw: Vec<Spent>,
}

impl Transfers {
    async fn measure(plan: &Plan, world: &World, cipher: Cipher) -> Outcome<Transfers> {
        let mut pair = world.sealed_pair(cipher).await?;
        let mut all = Transfers { cipher, ours: Vec::new(), sealed: Vec::new(), raw: Vec::new() };
        // The first transfer finds small windows and cold buffers.
        transfer(&mut pair, plan.bytes() / 8, 1).await?;
        for _ in 0..plan.rounds() {
            all.ours.push(transfer(&mut pair, plan.bytes(), 1).await?);
            all.sealed.push(baseline::sealed(plan.bytes(), cipher, Load::Bulk)?);
            all.raw.push(baseline::raw(plan.bytes())?);
        }
        pair.close().await?;
        Ok(all)
    }

    /// Ours beside each baseline, as `figure` sees them. Only records sealed as ours are have the target.
    fn figures(&self, what: &str, unit: Unit, target: Target, figure: impl Fn(&Spent) -> f64) -> [Figure; 2] {
        let over = |spent: &[Spent]| median(spent.iter().map(&figure).collect());
        let line = |name: String, spent: &[Spent], target| Figure {
            what: format!("{what}, {}", self.cipher),
            unit,
            ours: over(&self.ours),
            baseline: Some((name, over(spent))),
            target,
        };
        let sealed = line(format!("TCP + {}", self.cipher), &self.sealed, target);
        [sealed, line("raw TCP".to_owned(), &self.raw, Target::None)]
    }
}

pub(super) async fn rate(plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    let rate = |spent: &Spent| spent.rate(plan.bytes());
    let target = Target::RatioAtLeast(0.9);
    let mut first = None;
    for cipher in world.ciphers() {
        let all = Transfers::measure(plan, world, *cipher).await?;
        let figures = all.figures("one subchannel", Unit::MegabytesPerSecond, target, rate);
        for figure in &figures {
            report.figure(Case::Bulk, figure);
        }
        let [sealed, _] = figures;
        first.get_or_insert(sealed);
    }
    let python = match python::interpreter() {
        Ok(python) => python,
        Err(why) => {
            report.note(Case::Bulk, format_args!("no Python–Python: {why}"));
            return Ok(());
        }
    };
    let (mailbox, bytes) = (world.mailbox.clone(), plan.bytes().min(python::MOST));
    let rounds = plan.rounds();
    let rates = tokio::task::spawn_blocking(move || {
        let mut rates = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            let [to, from] = python::with_ours(&python, &mailbox, bytes)?;
            let measured = [python::transfer(&python, &mailbox, bytes)?, to, from];
            rates.iter_mut().zip(measured).for_each(|(rates, rate)| rates.push(rate));
        }
        Outcome::Ok(rates)
    });
    let [python, to, from] = rates.await??.map(median);
    let beside = |what: &str, ours: f64, least: f64| Figure {
        what: what.to_owned(),
        unit: Unit::MegabytesPerSecond,
        ours,
        baseline: Some(("Python–Python".to_owned(), python)),
        target: Target::RatioAtLeast(least),
    };
    if let Some(figure) = first {
        report.figure(Case::Bulk, &beside(&figure.what, figure.ours, 10.0));
    }
    report.figure(Case::Bulk, &beside("one subchannel of `ged` to Python", to, 1.0));
    report.figure(Case::Bulk, &beside("one subchannel of `ged` from Python", from, 1.0));
    Ok(())
}

pub(super) async fn cpu(plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    let cost = |spent: &Spent| spent.cpu_per_gigabyte(plan.bytes());
    for cipher in world.ciphers() {
        let all = Transfers::measure(plan, world, *cipher).await?;
        for figure in all.figures("both ends together", Unit::SecondsPerGigabyte, Target::None, cost) {
            report.figure(Case::Cpu, &figure);
        }
    }
    Ok(())
}

pub(super) async fn streams(plan: &Plan, world: &World, report: &mut Report) -> Outcome<()> {
    let mut one = Vec::new();
    let mut crowds = plan.crowds().map(|count| (count, Vec::new()));
    let bytes = plan.shared_bytes();
    for _ in 0..plan.rounds() {
        // Where a link's memory lies makes a difference of some per cent as long as it lives.
        let mut pair: Pair = world.pair().await?;
        transfer(&mut pair, bytes / 8, 1).await?;
        one.push(transfer(&mut pair, bytes, 1).await?.rate(bytes));
        for (count, rates) in &mut crowds {
            rates.push(transfer(&mut pair, bytes, *count).await?.rate(bytes));
        }
        pair.close().await?;
    }
    let one = median(one);
    for (count, rates) in crowds {
        report.figure(
            Case::Streams,
            &Figure {
                what: format!("{count} subchannels at once"),
                unit: Unit::MegabytesPerSecond,
                ours: median(rates),
                baseline: Some(("one subchannel".to_owned(), one)),
                target: Target::RatioAtLeast(0.9),
            },
        );
    }
    Ok(())
}
