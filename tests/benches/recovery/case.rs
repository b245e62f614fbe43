//! What is measured: what happens, and to whom.

use std::fmt;

use dilated_tests::lab::Implementation;

/// What happens while the stream runs from A to B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    OurAddress,
    TheirAddress,
    BothAddresses,
    DataVanishes,
    AnswersVanish,
    AllVanishes,
    Reset,
    Relay,
    MailboxGone,
    MailboxBack,
    Asleep,
    DirectLost,
    WhileConnecting,
    AloneOurAddress,
    AloneTheirAddress,
    AloneAllVanishes,
    AloneRelay,
    StandbyVanishes,
    StandbyReset,
}

impl Scenario {
    pub(crate) const ALL: [Scenario; 19] = [
        Scenario::OurAddress,
        Scenario::TheirAddress,
        Scenario::BothAddresses,
        Scenario::DataVanishes,
        Scenario::AnswersVanish,
        Scenario::AllVanishes,
        Scenario::Reset,
        Scenario::Relay,
        Scenario::MailboxGone,
        Scenario::MailboxBack,
        Scenario::Asleep,
        Scenario::DirectLost,
        Scenario::WhileConnecting,
        Scenario::AloneOurAddress,
        Scenario::AloneTheirAddress,
        Scenario::AloneAllVanishes,
        Scenario::AloneRelay,
        Scenario::StandbyVanishes,
        Scenario::StandbyReset,
    ];

    /// Whether it can be asked of these.
    pub(crate) fn suits(self, pairing: Pairing) -> bool {
        !(self.is_alone() || self.has_standby()) || pairing == Pairing::Ours
    }

    /// Whether the link goes through the relay.
    pub(crate) fn is_relayed(self) -> bool {
        matches!(self, Scenario::Relay | Scenario::AloneRelay)
    }

    /// Whether the mailbox server is gone long before.
    pub(crate) fn is_alone(self) -> bool {
        matches!(
            self,
            Scenario::AloneOurAddress
                | Scenario::AloneTheirAddress
                | Scenario::AloneAllVanishes
                | Scenario::AloneRelay
        )
    }

    /// Whether a second link stands by.
    pub(crate) fn has_standby(self) -> bool {
        matches!(self, Scenario::StandbyVanishes | Scenario::StandbyReset)
    }

    /// The short name, for the table and the filter.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::OurAddress => "sender's address changes",
            Scenario::TheirAddress => "receiver's address changes",
            Scenario::BothAddresses => "both addresses change",
            Scenario::DataVanishes => "the link's data vanish",
            Scenario::AnswersVanish => "the link's answers vanish",
            Scenario::AllVanishes => "all of the link vanishes",
            Scenario::Reset => "the link is reset",
            Scenario::Relay => "the relay restarts",
            Scenario::MailboxGone => "mailbox gone, link reset",
            Scenario::MailboxBack => "mailbox away for 1 s, link reset",
            Scenario::Asleep => "both sleep for 5 s",
            Scenario::DirectLost => "direct way lost, relay there",
            Scenario::WhileConnecting => "address changes while connecting",
            Scenario::AloneOurAddress => "no mailbox, sender's address changes",
            Scenario::AloneTheirAddress => "no mailbox, receiver's address changes",
            Scenario::AloneAllVanishes => "no mailbox, all of the link vanishes",
            Scenario::AloneRelay => "no mailbox, the relay restarts",
            Scenario::StandbyVanishes => "direct way lost, relay stands by",
            Scenario::StandbyReset => "the link is reset, relay stands by",
        }
    }
}

impl Scenario {
    /// What exactly happens.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Scenario::OurAddress => "A's only address is replaced by another",
            Scenario::TheirAddress => "B's only address is replaced by another",
            Scenario::BothAddresses => "both at the same time",
            Scenario::DataVanishes => {
                "packets of the link's TCP connection from A to B are dropped without a sign; others pass"
            }
            Scenario::AnswersVanish => "the same from B to A",
            Scenario::AllVanishes => "the same in both directions",
            Scenario::Reset => "the link's TCP connection is reset, which both ends see",
            Scenario::Relay => "the link goes through the relay, which is killed and started again at once",
            Scenario::MailboxGone => {
                "the mailbox server is killed and the link reset; the server stays away when both peers are ours, and \
                 comes back at once with what it knew when one is Python's, which cannot do without"
            }
            Scenario::MailboxBack => "the same, and the server comes back with what it knew after a second",
            Scenario::Asleep => {
                "both processes are stopped for five seconds; the time counts from their waking"
            }
            Scenario::DirectLost => "nothing passes between A and B any more; both know a relay",
            Scenario::WhileConnecting => {
                "the link is reset while A and B cannot reach each other; a second later A's address changes and they \
                 can; the time counts from then"
            }
            Scenario::AloneOurAddress => {
                "the mailbox server was killed, and both know, before A's only address is replaced by another"
            }
            Scenario::AloneTheirAddress => "the same with B's",
            Scenario::AloneAllVanishes => "the same, and the link's packets are dropped in both directions",
            Scenario::AloneRelay => {
                "the same, and the relay that carries the link is killed and started again at once"
            }
            Scenario::StandbyVanishes => {
                "a second link, through a relay, stands by; nothing passes between A and B any more"
            }
            Scenario::StandbyReset => "the same second link; the TCP connection of the first one is reset",
        }
    }
}

/// Who the peers are: A, which sends, and B, which receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pairing {
    Ours,
    OursLeads,
    PythonLeads,
    Python,
}

impl Pairing {
    pub(crate) const ALL: [Pairing; 4] =
        [Pairing::Ours, Pairing::OursLeads, Pairing::PythonLeads, Pairing::Python];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Pairing::Ours => "ours to ours",
            Pairing::OursLeads => "ours leads, to Python",
            Pairing::PythonLeads => "ours to Python, which leads",
            Pairing::Python => "Python to Python",
        }
    }

    pub(crate) fn with_python(self) -> bool {
        self != Pairing::Ours
    }

    /// A's and B's.
    pub(crate) fn implementations(self) -> (Implementation, Implementation) {
        match self {
            Pairing::Ours => (Implementation::Ours, Implementation::Ours),
            Pairing::OursLeads | Pairing::PythonLeads => (Implementation::Ours, Implementation::Python),
            Pairing::Python => (Implementation::Python, Implementation::Python),
        }
    }
}

/// A cell of the table.
pub(crate) type Cell = (Scenario, Pairing);

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) scenario: Scenario,
    pub(crate) pairing: Pairing,
    /// Counts from 0.
    pub(crate) run: usize,
}

impl Case {
    pub(crate) fn cell(&self) -> Cell {
        (self.scenario, self.pairing)
    }

    /// Where both are alike, every other run.
    pub(crate) fn sender_leads(&self) -> bool {
        match self.pairing {
            Pairing::OursLeads => true,
            Pairing::PythonLeads => false,
            Pairing::Ours | Pairing::Python => self.run.is_multiple_of(2),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leader = if self.sender_leads() { "sender" } else { "receiver" };
        write!(f, "{}, {}, run {} ({leader} leads)", self.scenario.name(), self.pairing.name(), self.run + 1)
    }
}
