//! The configuration file: what a user wants of every command, below the command line and the environment.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, parser::ValueSource};
use dilated::Proxy;
use etcetera::BaseStrategy;
use serde::{Deserialize, Deserializer, de};

use super::{Cli, Command, global::RelayOption};
use crate::{exit::Failure, quote::printable};

/// Names the file; empty means that there is none.
pub(crate) const VARIABLE: &str = "DILATED_CONFIG";

/// The longest file that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ConfigFile {
    /// Nothing is looked for.
    #[default]
    None,
    /// There would be one here.
    Missing(PathBuf),
    Read(PathBuf),
}

/// What a file says.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    mailbox: OneOrMany<Mailbox>,
    #[serde(default)]
    relay: OneOrMany<RelayOption>,
    #[serde(default, deserialize_with = "code_length")]
    code_length: Option<u8>,
    #[serde(default, deserialize_with = "parsed")]
    proxy: Option<Proxy>,
    no_listen: Option<bool>,
}

/// A text, or a list of them.
#[derive(Debug, PartialEq)]
struct OneOrMany<T>(Option<Vec<T>>);

/// The address of a mailbox server.
#[derive(Debug, PartialEq)]
struct Mailbox(String);

impl ConfigFile {
    /// Finds the file: the one of the environment, which must exist, or that of the platform's place.
    pub(super) fn find() -> Result<ConfigFile, Failure> {
        match std::env::var_os(VARIABLE) {
            Some(name) if name.is_empty() => Ok(ConfigFile::None),
            Some(name) => Ok(ConfigFile::Read(name.into())),
            None => match etcetera::choose_base_strategy() {
                Ok(places) => {
                    let path = places.config_dir().join("dilated").join("config.toml");
                    Ok(if path.exists() { ConfigFile::Read(path) } else { ConfigFile::Missing(path) })
                }
                Err(_) => Ok(ConfigFile::None),
            },
        }
    }

    /// Adds what the file says to what the command line and the environment leave open.
    pub(super) fn fill(&self, cli: &mut Cli, matches: &ArgMatches) -> Result<(), Failure> {
        if let ConfigFile::Read(path) = self {
            let text = read(path).map_err(|e| Failure::usage(format!("{self} cannot be read: {e}")))?;
            let config = parse(&text).map_err(|e| Failure::usage(format!("{self}, {e}")))?;
            config.fill(cli, matches);
        }
        Ok(())
    }
}

impl fmt::Display for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| printable(&path.display().to_string());
        match self {
            ConfigFile::None => f.write_str("no configuration file"),
            ConfigFile::Missing(path) => write!(f, "no configuration file ({} does not exist)", shown(path)),
            ConfigFile::Read(path) => write!(f, "the configuration file {}", shown(path)),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = io::Read::take(fs::File::open(path)?, LONGEST + 1);
    io::Read::read_to_string(&mut file, &mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
    }
    Ok(text)
}

/// The complaint begins with the line.
fn parse(text: &str) -> Result<Config, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
        format!("line {line}: {}", printable(error.message()))
    })
}

impl Config {
    fn fill(self, cli: &mut Cli, matches: &ArgMatches) {
        let open = |matches: &ArgMatches, id: &str| {
            matches!(matches.value_source(id), None | Some(ValueSource::DefaultValue))
        };
        let global = &mut cli.global;
        if let (Some(mailbox), true) = (self.mailbox.0, open(matches, "mailbox")) {
            global.mailbox = mailbox.into_iter().map(|Mailbox(url)| url).collect();
        }
        if let (Some(relay), true) = (self.relay.0, open(matches, "relay")) {
            global.relay = relay;
        }
        if let (Some(proxy), true) = (self.proxy, open(matches, "proxy")) {
            global.proxy = Some(proxy);
        }
        if let (Some(no_listen), true) = (self.no_listen, open(matches, "no_listen")) {
            global.no_listen = no_listen;
        }
        let command = matches.subcommand().map(|(_, matches)| matches);
        if let (Some(length), Some(matches)) = (self.code_length, command) {
            let target = match &mut cli.command {
                Command::Send(options) => &mut options.transfer.code_length,
                Command::Receive(options) => &mut options.transfer.code_length,
                Command::Pipe(options) => &mut options.join.code_length,
                Command::Bench(options) => &mut options.join.code_length,
                Command::Serve(_)
                | Command::Demo(_)
                | Command::Doctor
                | Command::Completions(_)
                | Command::Man(_) => return,
            };
            if open(matches, "code_length") {
                *target = length;
            }
        }
    }
}

impl<T> Default for OneOrMany<T> {
    fn default() -> OneOrMany<T> {
        OneOrMany(None)
    }
}

impl<'de, T: std::str::FromStr<Err = String>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany<T>, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: std::str::FromStr<Err = String>> de::Visitor<'de> for Visitor<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                Ok(vec![text.parse().map_err(E::custom)?])
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    all.push(text.parse().map_err(de::Error::custom)?);
                }
                Ok(all)
            }
        }

        deserializer.deserialize_any(Visitor(std::marker::PhantomData)).map(|all| OneOrMany(Some(all)))
    }
}

impl std::str::FromStr for Mailbox {
    type Err = String;

    fn from_str(text: &str) -> Result<Mailbox, String> {
        match text.split_once("://") {
            Some(("ws" | "wss", _)) => Ok(Mailbox(text.to_owned())),
            _ => Err(format!("{text} is not a mailbox server's address, ws://host:port/v1 or wss://…")),
        }
    }
}

/// A value that is written as text.
fn parsed<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: fmt::Display>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(de::Error::custom)
}

fn code_length<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    let length = i64::deserialize(from)?;
    let valid = u8::try_from(length).ok().filter(|length| super::CODE_LENGTH.contains(&i64::from(*length)));
    valid.map(Some).ok_or_else(|| de::Error::custom("code_length must be a number from 1 to 32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = r#"
        # everything
        mailbox = ["ws://one:4000/v1", "wss://two/v1"]
        relay = "tcp:relay:4001"
        code_length = 4
        proxy = "socks5://[::1]:1080"
        no_listen = true
    "#;

    fn filled(arguments: &[&str], text: &str) -> Cli {
        let matches = super::super::tests::matches(arguments);
        let mut cli = <Cli as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        parse(text).unwrap().fill(&mut cli, &matches);
        cli
    }

    fn code_length_of(cli: &Cli) -> u8 {
        match &cli.command {
            Command::Send(options) => options.transfer.code_length,
            Command::Pipe(options) => options.join.code_length,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_fills_what_is_left_open() {
        let cli = filled(&["send", "x"], ALL);
        assert_eq!(cli.global.mailbox, ["ws://one:4000/v1", "wss://two/v1"]);
        assert_eq!(cli.global.relay[0].to_string(), "tcp:relay:4001");
        assert_eq!(cli.global.proxy().unwrap().to_string(), "socks5://[::1]:1080");
        assert!(cli.global.no_listen);
        assert_eq!(code_length_of(&cli), 4);
        assert_eq!(code_length_of(&filled(&["pipe"], ALL)), 4);
        let cli = filled(&["send", "x"], "");
        assert!(cli.global.mailbox.is_empty() && cli.global.relay.is_empty() && !cli.global.no_listen);
        assert_eq!(code_length_of(&cli), 2);
    }

    #[test]
    fn the_command_line_is_stronger_wherever_it_is_said() {
        for arguments in [
            ["--mailbox", "ws://x/v1", "--relay", "none", "send", "x"],
            ["send", "--mailbox", "ws://x/v1", "--relay", "none", "x"],
        ] {
            let cli = filled(&arguments, ALL);
            assert_eq!(cli.global.mailbox, ["ws://x/v1"], "{arguments:?}");
            assert_eq!(cli.global.relay[0].to_string(), "none");
            assert_eq!(code_length_of(&cli), 4);
        }
        let cli = filled(&["send", "--proxy", "h:1", "-c", "2", "x"], ALL);
        assert_eq!(cli.global.proxy().unwrap().to_string(), "socks5://h:1");
        assert_eq!(code_length_of(&cli), 2, "said, though it is the default");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, part) in [
            ("\nrelais = 1\n", 2, "unknown field `relais`"),
            ("no_listen = true\ncode_length = \"3\"", 2, "invalid type"),
            ("no_listen = 1", 1, "invalid type: integer `1`, expected a boolean"),
            ("\n\nmailbox = 7", 3, "a string or a list of strings"),
            ("mailbox = [\"ws://x/v1\",\n7]", 2, "expected a string"),
            ("mailbox = \"http://x\"", 1, "not a mailbox server's address"),
            ("\nrelay = \"one:4001\"", 2, ""),
            ("code_length = 33", 1, "from 1 to 32"),
            ("code_length = -1", 1, "from 1 to 32"),
            ("proxy = \"http://h:1\"", 1, "only SOCKS5 proxies"),
            ("a = \n", 1, ""),
            ("mailbox = \"ws://a/v1\"\nmailbox = \"ws://b/v1\"", 2, "duplicate"),
        ] {
            let complaint = parse(text).unwrap_err();
            assert!(complaint.starts_with(&format!("line {line}: ")), "{text:?}: {complaint}");
            assert!(complaint.contains(part) && !complaint.contains('\n'), "{text:?}: {complaint}");
        }
    }

    #[test]
    fn the_example_of_the_document_is_one() {
        let document = include_str!("../../../docs/cli.md");
        let (_, example) = document.split_once("```toml\n").unwrap();
        let config = parse(example.split_once("```").unwrap().0).unwrap();
        assert!(config.mailbox.0.is_some() && config.relay.0.is_some() && config.proxy.is_some());
        assert!(config.code_length.is_some() && config.no_listen.is_some());
    }

    #[test]
    fn a_file_that_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let matches = super::super::tests::matches(&["pipe"]);
        let mut cli = <Cli as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        let mut complaint =
            || ConfigFile::Read(path.clone()).fill(&mut cli, &matches).unwrap_err().to_string();
        assert!(complaint().contains("config.toml cannot be read"), "{}", complaint());
        fs::write(&path, "x".repeat(70_000)).unwrap();
        assert!(complaint().contains("longer than"), "{}", complaint());
        fs::write(&path, "\n\nx = 1").unwrap();
        assert!(complaint().contains("config.toml, line 3: unknown field"), "{}", complaint());
    }
}
