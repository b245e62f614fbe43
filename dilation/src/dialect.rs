//! Which protocol the two sides speak, and what each says of itself for it
//! (specification `dilated-1`, section "Negotiation").

use std::fmt;

use dilated_subchannel::mux::Params;
use serde_json::{Value, json};

/// A version of the dilation protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// That of the Python implementation.
    Ged,
    /// Ours: flow control for each subchannel, exact resume, either side reconnects, two links at a time, datagrams.
    Dilated1,
}

impl Dialect {
    /// All that we speak, the best first: what a wormhole offers unless it is told otherwise.
    pub const ALL: [Dialect; 2] = [Dialect::Dilated1, Dialect::Ged];

    /// Its name in `can-dilate` and `use-version`.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Ged => "ged",
            Dialect::Dilated1 => "dilated-1",
        }
    }

    /// The dialect of this name.
    pub fn from_name(name: &str) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.name() == name)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a side says of itself in its `please`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The processor has instructions for AES.
    pub aes: bool,
    /// It wants a second link that stands by.
    pub standby: bool,
    /// What it takes.
    pub mux: Params,
}

impl Parameters {
    /// The greatest number that a frame could carry, too.
    const MOST: u64 = (1 << 62) - 1;

    pub(crate) fn encode(&self) -> Value {
        let Params { subchannel_credit, link_credit, subchannels, datagram, message } = self.mux;
        json!({
            "aes": self.aes,
            "standby": self.standby,
            "subchannel-credit": subchannel_credit,
            "link-credit": link_credit,
            "subchannels": subchannels,
            "datagram": datagram,
            "message": message,
        })
    }

    /// What cannot be understood counts as missing.
    pub(crate) fn parse(value: Option<&Value>) -> Parameters {
        let number = |key: &str, default: u64| {
            let found = value.and_then(|value| value.get(key)).and_then(Value::as_u64);
            found.filter(|number| *number <= Parameters::MOST).unwrap_or(default)
        };
        let flag = |key: &str| value.and_then(|value| value.get(key)) == Some(&Value::Bool(true));
        let default = Params::default();
        Parameters {
            aes: flag("aes"),
            standby: flag("standby"),
            mux: Params {
                subchannel_credit: number("subchannel-credit", default.subchannel_credit),
                link_credit: number("link-credit", default.link_credit),
                subchannels: number("subchannels", default.subchannels),
                datagram: number("datagram", default.datagram),
                message: number("message", default.message),
            },
        }
    }
}

/// What this side brings to the negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The dialects that it offers, the best first.
    pub dialects: Vec<Dialect>,
    /// What it says of itself.
    pub parameters: Parameters,
}

/// What was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Agreement {
    /// [`Dialect::Ged`].
    Ged,
    /// [`Dialect::Dilated1`].
    Dilated1 {
        /// Both sides have instructions for AES, so that links use it.
        aes: bool,
        /// One side wants a second link, so that both look for it.
        standby: bool,
        /// What the peer takes.
        peer: Params,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_wire() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_name(dialect.name()), Some(dialect));
        }
        assert_eq!(Dialect::from_name("dilated-2"), None);
    }

    #[test]
    fn parameters_survive_the_wire_and_nonsense_is_the_default() {
        let said = Parameters {
            aes: true,
            standby: true,
            mux: Params {
                subchannel_credit: 1,
                link_credit: 2,
                subchannels: 3,
                datagram: 0,
                message: Parameters::MOST,
            },
        };
        assert_eq!(Parameters::parse(Some(&said.encode())), said);
        assert_eq!(Parameters::parse(None), Parameters::default());
        for value in [
            json!(7),
            json!([]),
            json!({"aes": 1, "message": "much", "datagram": -1, "subchannels": 1.5, "link-credit": 1u64 << 62}),
        ] {
            assert_eq!(Parameters::parse(Some(&value)), Parameters::default(), "{value}");
        }
    }
}
