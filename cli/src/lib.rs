//! All of the command `dilated`: files, pipes between two machines, a measurement, a demonstration, and the servers. It is a library
//! only so that fuzz targets reach its readers of strangers' bytes; nothing here is an interface for programs.

mod bench;
mod clock;
mod demo;
mod doctor;
mod exit;
mod files;
mod generate;
mod loopback;
mod meeting;
mod options;
mod pipe;
mod quote;
mod serve;
mod show;
mod signals;
mod status;
mod stdio;
mod transfer;

use std::{io, process::ExitCode};

use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

#[cfg(feature = "fuzzing")]
pub use crate::transfer::fuzz;
use crate::{
    exit::Failure,
    options::{Cli, Command},
    status::Report,
};

/// Runs the command that the arguments of the process name, to its end.
#[must_use]
pub fn run() -> ExitCode {
    let report = Report::new();
    let cli = match Cli::load() {
        Ok(cli) => cli,
        Err(failure) => return report.end(Err(failure)),
    };
    trace(cli.verbose, &report);
    let runtime = match runtime(&cli.command) {
        Ok(runtime) => runtime,
        Err(error) => return report.end(Err(Failure::io("could not start", &error))),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Send(options) => transfer::send(&cli.global, options, &report).await,
            Command::Receive(options) => transfer::receive(&cli.global, options, &report).await,
            Command::Pipe(options) => pipe::run(&cli.global, options, &report).await,
            Command::Bench(options) => bench::run(&cli.global, options, &report).await,
            Command::Serve(options) => serve::run(options, &report).await,
            Command::Demo(options) => demo::run(options, &report).await,
            Command::Completions(options) => options::completions(options.shell, &report),
            Command::Man(options) => options::man(options.directory.as_deref(), &report),
            Command::Doctor => doctor::run(&cli.global, &report).await,
        }
    });
    // A thread that waits for standard input cannot be stopped, so it must not be waited for.
    runtime.shutdown_background();
    report.end(result)
}

/// What the command runs on. A transfer is one stream: to hand each piece of it from thread to thread costs more than what
/// the next one does with it. Files are read, hashed and written beside it.
fn runtime(command: &Command) -> io::Result<Runtime> {
    let mut builder = match command {
        Command::Send(_) | Command::Receive(_) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

/// Tracing on standard error. Standard output belongs to the data.
fn trace(verbose: u8, report: &Report) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let report = report.clone();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(status::may_colour())
        .with_writer(move || report.writer())
        .init();
}
