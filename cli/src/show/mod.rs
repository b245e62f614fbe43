//! What a transfer shows and asks: lines, bars and a QR code for people, events for programs.

mod bar;
mod event;
mod qr;
mod terminal;
mod typing;
mod uri;

use std::{
    fmt::Display,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dilated::{Wormhole, WormholeError};

use self::typing::NoCode;
pub(crate) use self::{
    bar::Bar,
    event::{Event, Hash, Offered, Protocol, Side, Total},
    terminal::Terminal,
    uri::{Role, TransferUri},
};
use crate::{exit::Failure, options::TransferOptions, quote::printable, status, status::Report};

/// Shows and asks. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Show(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    report: Report,
    json: bool,
    bars: bool,
    qr: bool,
    colours: bool,
    /// Whether the reader of the events has left.
    closed: AtomicBool,
}

impl Show {
    pub(crate) fn new(report: &Report, options: &TransferOptions) -> Show {
        Show(Arc::new(Inner {
            report: report.clone(),
            json: options.json,
            bars: !options.json && !options.no_progress,
            qr: !options.json && !options.no_qr,
            colours: status::may_colour(),
            closed: AtomicBool::new(false),
        }))
    }

    /// One that tells programs nothing and draws nothing.
    #[cfg(test)]
    fn silent() -> Show {
        let closed = AtomicBool::new(false);
        Show(Arc::new(Inner {
            report: Report::new(),
            json: false,
            bars: false,
            qr: false,
            colours: false,
            closed,
        }))
    }

    /// Where lines for people go.
    pub(crate) fn report(&self) -> &Report {
        &self.0.report
    }

    /// One thing that happened, for people.
    pub(crate) fn line(&self, what: impl Display) {
        self.0.report.line(what);
    }

    /// Something that came got another name than the other side gave it.
    pub(crate) fn altered(&self) {
        self.line("names had characters that are not safe here; there is `_` in their place");
    }

    /// Whether programs are told, and standard output is theirs.
    pub(crate) fn is_json(&self) -> bool {
        self.0.json
    }

    fn draws_bars(&self) -> bool {
        self.0.bars
    }

    fn colours(&self) -> bool {
        self.0.colours
    }

    /// One thing that happened, for programs; without `--json` nothing is said.
    pub(crate) fn event(&self, event: &Event) {
        let Inner { json, closed, .. } = &*self.0;
        if !json || closed.load(Ordering::Relaxed) {
            return;
        }
        let line = event.to_line() + "\n";
        let mut output = std::io::stdout().lock();
        if output.write_all(line.as_bytes()).and_then(|()| output.flush()).is_err() {
            closed.store(true, Ordering::Relaxed);
        }
    }

    /// Shows the code that the other side needs: the command to run there, and a QR code on a terminal.
    pub(crate) fn code(&self, code: &str, command: &str, uri: Option<&TransferUri>) {
        let uri = uri.map(ToString::to_string);
        self.line(format_args!("the code is {}", printable(code)));
        self.line("on the other side, run");
        self.report().plain(format_args!("    {command}"));
        if let Some(uri) = &uri
            && self.0.qr
            && self.report().is_terminal()
        {
            self.qr(uri);
        }
        self.event(&Event::Code { code: code.to_owned(), command: command.to_owned(), uri });
    }

    fn qr(&self, uri: &str) {
        match qr::draw(uri) {
            Some(drawing) if terminal::columns().is_none_or(|columns| drawing.width <= columns) => {
                self.line(format_args!("or open {uri}"));
                self.report().plain(drawing.text);
            }
            _ => self.line(format_args!("or open {uri} (the terminal is too narrow for a QR code)")),
        }
    }

    /// Begins to show how far something is. `total` is in bytes, if that is known; `name` may come from the other side.
    pub(crate) fn progress(&self, total: Option<u64>, name: &str) -> Bar {
        Bar::new(self, total, name)
    }

    /// Asks on the terminal. The default is what an empty answer means; without one, only a clear answer counts.
    ///
    /// # Errors
    /// Without a terminal, one that names the option `instead` which makes the question needless.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the question.
    pub(crate) async fn ask(
        &self,
        question: &str,
        default: Option<bool>,
        instead: &str,
    ) -> Result<bool, Failure> {
        let terminal = Terminal::open().map_err(|_| {
            Failure::usage(format!(
                "there is a question, and no terminal to ask it on ({question}); answer it with {instead}"
            ))
        })?;
        let _held = self.report().hold();
        terminal.ask(question.to_owned(), default).await
    }

    /// Asks for the code, with completion, and uses it. Standard input that is no terminal gives one line.
    ///
    /// # Errors
    /// If the typist gives up, or the wormhole ends.
    ///
    /// # Cancel safety
    /// Dropping the future puts the terminal back as it was.
    pub(crate) async fn input_code(&self, wormhole: &Wormhole) -> Result<(), Failure> {
        let typed = match wormhole.input_code() {
            Ok(input) => {
                let _held = self.report().hold();
                typing::input(input).await
            }
            Err(WormholeError::Closed) => Err(NoCode::Closed),
            Err(error) => return Err(error.into()),
        };
        match typed {
            Ok(()) => Ok(()),
            Err(NoCode::Failed(failure)) => Err(failure),
            Err(NoCode::Closed) => Err(wormhole.close().await.err().unwrap_or(WormholeError::Closed).into()),
        }
    }

    /// The last thing: tells programs how it ended, and that they should have stayed.
    pub(crate) fn end(&self, result: Result<(), Failure>) -> Result<(), Failure> {
        if let Err(failure) = &result {
            self.event(&Event::Failed { status: failure.kind().status(), message: failure.to_string() });
        }
        match result {
            Ok(()) if self.0.closed.load(Ordering::Relaxed) => Err(Failure::output_closed()),
            result => result,
        }
    }
}
