//! Options of `dilated send` and `dilated receive`, with the names that `wormhole` gives them.

use std::path::PathBuf;

use clap::{Args, builder::FalseyValueParser};

use super::{Global, code::CodeWish};
use crate::{exit::Failure, quote, show::Role};

/// Options of both.
#[derive(Debug, Clone, Args)]
pub(crate) struct TransferOptions {
    /// Use this code, or wormhole-transfer: address, which both sides agreed on. In the environment other users of
    /// this machine cannot see it
    #[arg(long = "code", env = "DILATED_CODE", hide_env_values = true, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Read the code from this file descriptor, where no other user of this machine can see it
    #[arg(long, env = "DILATED_CODE_FD", hide_env_values = true, value_name = "N",
          value_parser = clap::value_parser!(u16).range(0..1024))]
    pub(crate) code_fd: Option<u16>,
    /// Words in the code that is printed
    #[arg(short, long, env = "DILATED_CODE_LENGTH", hide_env_values = true, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) code_length: u8,
    /// Tell what happens on standard output, as one JSON object per line
    #[arg(long, env = "DILATED_JSON", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Draw no QR code
    #[arg(long, env = "DILATED_NO_QR", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) no_qr: bool,
    /// Draw no progress bar
    #[arg(long, env = "DILATED_NO_PROGRESS", hide_env_values = true, value_parser = FalseyValueParser::new(),
          visible_alias = "hide-progress")]
    pub(crate) no_progress: bool,
    /// Take what the other side offers without asking
    #[arg(short, long, env = "DILATED_YES", hide_env_values = true, value_parser = FalseyValueParser::new(),
          visible_alias = "accept-file")]
    pub(crate) yes: bool,
    /// Speak only the protocol of the original, even if the other side knows ours
    #[arg(long, env = "DILATED_CLASSIC", hide_env_values = true, value_parser = FalseyValueParser::new(), hide = true)]
    pub(crate) classic: bool,
}

/// Options of `dilated send`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SendOptions {
    /// Files and directories; `-` is standard input
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<PathBuf>,
    /// Send this text; `-` reads it from standard input
    #[arg(
        long,
        env = "DILATED_TEXT",
        hide_env_values = true,
        value_name = "TEXT",
        allow_hyphen_values = true
    )]
    pub(crate) text: Option<String>,
    /// What the other side is told that standard input is called
    #[arg(long, env = "DILATED_NAME", hide_env_values = true, value_name = "NAME", default_value = "stdin")]
    pub(crate) name: String,
    /// Leave out what cannot be read, such as broken symbolic links
    #[arg(long, env = "DILATED_IGNORE_UNSENDABLE_FILES", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) ignore_unsendable_files: bool,
    #[command(flatten)]
    pub(crate) transfer: TransferOptions,
}

/// Options of `dilated receive`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReceiveOptions {
    /// The code, or wormhole-transfer: address, that the other side printed [default: asks for it]
    #[arg(value_name = "CODE")]
    pub(crate) typed: Option<String>,
    /// Get a code and print it, for the other side to send with
    #[arg(short, long, env = "DILATED_ALLOCATE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) allocate: bool,
    /// Where it is put: a new name, or an existing directory [default: the name that the other side gave it, here]
    #[arg(
        short,
        long,
        env = "DILATED_OUTPUT",
        hide_env_values = true,
        value_name = "PATH",
        visible_alias = "output-file"
    )]
    pub(crate) output: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long, env = "DILATED_OVERWRITE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) overwrite: bool,
    /// Take only a text
    #[arg(short = 't', long, env = "DILATED_ONLY_TEXT", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) only_text: bool,
    #[command(flatten)]
    pub(crate) transfer: TransferOptions,
}

impl SendOptions {
    /// Complains about what is missing and what contradicts.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (self.what.is_empty(), &self.text) {
            (true, None) => {
                Err(Failure::usage("there is nothing to send: name files or directories, or use --text"))
            }
            (false, Some(_)) => Err(Failure::usage("--text cannot be sent together with files")),
            _ => Ok(()),
        }
    }

    /// How this side gets its code. An address may name a mailbox server, which then replaces those of `global`. May
    /// block until the descriptor of --code-fd has told it.
    pub(crate) fn code(&self, global: &mut Global) -> Result<CodeWish, Failure> {
        let wish = self.transfer.given()?.map(CodeWish::Given);
        wish.unwrap_or(CodeWish::Allocate(self.transfer.code_length)).resolve(global, Role::Leader)
    }

    /// The command that the other side types, given the code.
    pub(crate) fn for_the_other_side(global: &Global, code: &str) -> String {
        format!("dilated{} receive {}", global.for_the_other_side(), quote::shell(code))
    }
}

impl ReceiveOptions {
    /// How this side gets its code. An address may name a mailbox server, which then replaces those of `global`. May
    /// block until the descriptor of --code-fd has told it.
    pub(crate) fn code(&self, global: &mut Global) -> Result<CodeWish, Failure> {
        let given = self.transfer.given()?;
        let typed = self.typed.as_deref().map(str::trim).filter(|code| !code.is_empty()).map(str::to_owned);
        if typed.is_some() && given.is_some() {
            return Err(Failure::usage("two codes were given; leave one of them away"));
        }
        let wish = match (typed.or(given), self.allocate) {
            (Some(_), true) => {
                return Err(Failure::usage(
                    "--allocate gets a code, and one was given; leave one of them away",
                ));
            }
            (Some(code), false) => CodeWish::Given(code),
            (None, true) => CodeWish::Allocate(self.transfer.code_length),
            (None, false) => CodeWish::Input,
        };
        wish.resolve(global, Role::Follower)
    }

    /// The command that the other side types, given the code that this side allocated.
    pub(crate) fn for_the_other_side(global: &Global, code: &str) -> String {
        format!("dilated{} send --code {} FILE", global.for_the_other_side(), quote::shell(code))
    }
}

impl TransferOptions {
    /// Leaves away what the environment says and the command line contradicts.
    pub(super) fn forget(&mut self, code: bool, code_fd: bool) {
        if code {
            self.code = None;
        }
        if code_fd {
            self.code_fd = None;
        }
    }

    /// The code of --code or --code-fd; an empty one is none.
    fn given(&self) -> Result<Option<String>, Failure> {
        let code = match (&self.code, self.code_fd) {
            (Some(_), Some(_)) => return Err(Failure::usage("--code and --code-fd cannot both be used")),
            (None, Some(descriptor)) => Some(super::code::read(descriptor)?),
            (code, None) => code.clone(),
        };
        Ok(code.map(|code| code.trim().to_owned()).filter(|code| !code.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exit::Kind,
        options::{Cli, Command, tests::matches},
    };

    fn load(arguments: &[&str]) -> Result<Cli, Failure> {
        Cli::from_matches(&matches(arguments))
    }

    fn send(arguments: &[&str]) -> (Global, SendOptions) {
        match load(&[&["send"], arguments].concat()).unwrap() {
            Cli { global, command: Command::Send(options), .. } => (global, options),
            other => panic!("{other:?}"),
        }
    }

    fn receive(arguments: &[&str]) -> (Global, ReceiveOptions) {
        match load(&[&["receive"], arguments].concat()).unwrap() {
            Cli { global, command: Command::Receive(options), .. } => (global, options),
            other => panic!("{other:?}"),
        }
    }

    fn wish(arguments: &[&str]) -> Result<CodeWish, Failure> {
        let (mut global, options) = receive(arguments);
        options.code(&mut global)
    }

    #[test]
    fn what_wormhole_users_type() {
        let (_, options) = send(&["--text", "-hello", "-c", "4", "--hide-progress", "--no-qr"]);
        assert_eq!(options.text.as_deref(), Some("-hello"));
        assert!(options.transfer.code_length == 4 && options.transfer.no_progress && options.transfer.no_qr);
        let (global, options) =
            receive(&["--accept-file", "-o", "x", "--verify", "--no-listen", "-t", "7-a-b"]);
        assert!(options.transfer.yes && options.only_text && global.verify && global.no_listen);
        assert_eq!(options.output, Some("x".into()));
        let (_, options) = receive(&["--output-file", "y"]);
        assert_eq!(options.output, Some("y".into()));
        for alias in ["tx", "send"] {
            assert!(matches!(load(&[alias, "file"]).unwrap().command, Command::Send(_)));
        }
        for alias in ["rx", "recv", "recieve", "receive"] {
            assert!(matches!(load(&[alias]).unwrap().command, Command::Receive(_)));
        }
        let cli = load(&["--relay-url", "ws://h/v1", "--transit-helper", "tcp:h:1", "tx", "file"]).unwrap();
        assert!(cli.global.mailbox == ["ws://h/v1"] && cli.global.relay[0].to_string() == "tcp:h:1");
    }

    #[test]
    fn there_must_be_one_thing_to_send() {
        let refused = |arguments: &[&str], part: &str| {
            let failure = load(&[&["send"], arguments].concat()).unwrap_err();
            assert!(failure.kind() == Kind::Usage && failure.to_string().contains(part), "{failure}");
        };
        refused(&[], "nothing to send");
        refused(&["--text", "x", "file"], "--text cannot be sent together");
        assert_eq!(send(&["-", "a b"]).1.what, [PathBuf::from("-"), "a b".into()]);
    }

    #[test]
    fn where_the_code_comes_from() {
        assert_eq!(wish(&[]), Ok(CodeWish::Input));
        assert_eq!(wish(&["--allocate", "-c", "3"]), Ok(CodeWish::Allocate(3)));
        assert_eq!(wish(&[" 7-a-b "]), Ok(CodeWish::Given("7-a-b".to_owned())));
        assert_eq!(wish(&["--code", "7-a-b"]), Ok(CodeWish::Given("7-a-b".to_owned())));
        assert_eq!(wish(&["--code", " "]), Ok(CodeWish::Input));
        for both in [
            &["7-a-b", "--allocate"][..],
            &["7-a-b", "--code", "7-a-b"],
            &["--code", "7-a", "--code-fd", "3"],
        ] {
            assert_eq!(wish(both).unwrap_err().kind(), Kind::Usage, "{both:?}");
        }
        for wordless in ["7", "7-", "7--", "-"] {
            let failure = wish(&["--code", wordless]).unwrap_err();
            assert!(failure.kind() == Kind::Usage && failure.to_string().contains("no words"), "{failure}");
        }
        assert!(wish(&["--code", "7-1234"]).is_ok(), "other programs take it, too");
        let (mut global, options) = send(&["file"]);
        assert_eq!(options.code(&mut global), Ok(CodeWish::Allocate(2)));
        let failure = wish(&["--code-fd", "1000"]).unwrap_err();
        assert!(failure.kind() == Kind::Usage && failure.to_string().contains("--code-fd 1000"), "{failure}");
    }

    #[test]
    fn an_address_brings_its_server() {
        let (mut global, options) = receive(&[
            "--mailbox",
            "ws://other/v1",
            "wormhole-transfer:7-a-b?rendezvous=ws%3A%2F%2Fh%3A4000",
        ]);
        assert_eq!(options.code(&mut global), Ok(CodeWish::Given("7-a-b".to_owned())));
        assert_eq!(global.mailbox, ["ws://h:4000/v1"]);
        let (mut global, options) = receive(&["--mailbox", "ws://other/v1", "wormhole-transfer:7-a-b"]);
        assert_eq!(options.code(&mut global), Ok(CodeWish::Given("7-a-b".to_owned())));
        assert_eq!(global.mailbox, ["ws://other/v1"], "an address without a server names none");
        let (mut global, options) = send(&["--code", "wormhole-transfer:7-a-b?role=leader", "file"]);
        assert_eq!(options.code(&mut global), Ok(CodeWish::Given("7-a-b".to_owned())));
        let (mut global, options) = send(&["--code", "wormhole-transfer:7-a-b", "file"]);
        assert_eq!(options.code(&mut global).unwrap_err().kind(), Kind::Usage);
        assert_eq!(wish(&["wormhole-transfer:7-a-b?role=leader"]).unwrap_err().kind(), Kind::Usage);
        assert_eq!(wish(&["wormhole-transfer:7-a-b?x=1"]).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn the_other_side_gets_a_command_that_meets_ours() {
        let (global, _) = send(&["--relay", "none", "--appid", "a b", "file"]);
        assert_eq!(
            SendOptions::for_the_other_side(&global, "7-a-b"),
            "dilated --relay none --appid 'a b' receive 7-a-b"
        );
        let (global, _) = receive(&["--allocate"]);
        assert_eq!(ReceiveOptions::for_the_other_side(&global, "7-a-b"), "dilated send --code 7-a-b FILE");
    }
}
