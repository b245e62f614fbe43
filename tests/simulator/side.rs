//! One side: its manager, its multiplexer, its end of the link, its application.

use std::{collections::VecDeque, time::Instant};

use bytes::{Bytes, BytesMut};
use dilated::{
    ManagerTiming, Role,
    protocol::{Action, DilationSide, Manager, State},
};
use dilated_subchannel::{
    id::Parity,
    mux::{Mux, MuxConfig},
    record::Record,
};
use dilated_transit::{
    DilationKey, Ephemeral, HandshakeLimits, Hint, HintLimits, KCM, LinkHandshake, Opener, Sealer, TcpHint,
};
use rand::rngs::StdRng;

use crate::app::App;

/// Small limits, so that every run meets them.
pub(crate) const LIMITS: MuxConfigLimits = MuxConfigLimits { outbox: 8192, receive: 4096, total: 16_384 };

pub(crate) struct MuxConfigLimits {
    pub(crate) outbox: usize,
    pub(crate) receive: usize,
    pub(crate) total: usize,
}

/// Bytes of ciphertext that wait to be put on the wire before the multiplexer is asked for more.
const WRITE_AHEAD: usize = 4096;

/// What a side has of a link.
enum Stage {
    Handshake(Box<LinkHandshake>),
    Chosen(Box<(Sealer, Opener)>),
}

/// A side's end of a connection.
pub(crate) struct Connection {
    stage: Stage,
    /// To be put on the wire.
    pub(crate) output: BytesMut,
}

pub(crate) struct Side {
    pub(crate) manager: Manager,
    pub(crate) mux: Mux,
    pub(crate) app: App,
    key: DilationKey,
    side: DilationSide,
    pub(crate) outgoing_mail: VecDeque<Vec<u8>>,
    /// The connector runs; whether it has heard where the peer is.
    pub(crate) connecting: Option<Role>,
    pub(crate) knows_peer: bool,
    pub(crate) connection: Option<Connection>,
    /// Records opened on all links.
    pub(crate) records: u64,
}

impl Side {
    pub(crate) fn new(number: usize, side: DilationSide, rng: &mut StdRng) -> Side {
        let config = MuxConfig {
            outbox_limit: LIMITS.outbox,
            receive_limit: LIMITS.receive,
            receive_total: LIMITS.total,
            ..MuxConfig::default()
        };
        let mut mux = Mux::new(config);
        let app = App::new(number, &mut mux, rng);
        Side {
            manager: Manager::new(HintLimits::default(), ManagerTiming::default()),
            mux,
            app,
            key: DilationKey::new([7; 32]),
            side,
            outgoing_mail: VecDeque::new(),
            connecting: None,
            knows_peer: false,
            connection: None,
            records: 0,
        }
    }

    pub(crate) fn begin(&mut self, now: Instant) {
        self.manager.dilate(self.side.clone(), now);
        self.manager.handle_versions(&["ged".to_owned()], now);
        self.perform();
    }

    /// Does what the manager says.
    pub(crate) fn perform(&mut self) {
        while let Some(action) = self.manager.poll_action() {
            match action {
                Action::Send(message) => self.outgoing_mail.push_back(message),
                Action::RoleChosen(role) => self.mux.start(match role {
                    Role::Leader => Parity::Odd,
                    Role::Follower => Parity::Even,
                }),
                Action::StartConnector(role, _) => {
                    self.connecting = Some(role);
                    self.knows_peer = false;
                    self.manager
                        .handle_local_hints(vec![Hint::Direct(TcpHint::from_addr([192, 0, 2, 1].into(), 1))]);
                }
                Action::StopConnector => {
                    self.connecting = None;
                    self.connection = None;
                }
                Action::UseHints(_) => self.knows_peer = true,
                Action::AbortLink => self.drop_link(),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.manager.state(), State::Connected { .. })
    }

    /// A connection to the peer has come up.
    pub(crate) fn connect(&mut self, rng: &mut StdRng) {
        let role = self.connecting.expect("only a connector connects");
        let ephemeral = Ephemeral::generate(rng);
        let mut handshake =
            LinkHandshake::new(role, self.key.clone(), ephemeral, None, HandshakeLimits::default());
        let output = handshake.poll_output().expect("the prologue");
        self.connection = Some(Connection { stage: Stage::Handshake(Box::new(handshake)), output });
    }

    fn drop_link(&mut self) {
        self.connection = None;
        self.mux.link_down();
    }

    /// The network says that the connection is gone.
    pub(crate) fn handle_lost(&mut self, now: Instant) {
        self.drop_link();
        self.manager.handle_link_lost(now);
        self.perform();
    }

    /// Bytes came; `self.wants_input()` held before.
    pub(crate) fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        let Some(mut connection) = self.connection.take() else { return };
        connection.stage = match connection.stage {
            Stage::Handshake(mut handshake) => {
                handshake.handle_input(bytes).expect("a peer with the same key");
                if let Some(output) = handshake.poll_output() {
                    connection.output.unsplit(output);
                }
                if handshake.is_confirmed() {
                    self.choose(*handshake, &mut connection.output, now)
                } else {
                    Stage::Handshake(handshake)
                }
            }
            Stage::Chosen(mut pipe) => {
                pipe.1.buffer().extend_from_slice(bytes);
                Stage::Chosen(pipe)
            }
        };
        self.connection = Some(connection);
        self.open_records();
    }

    /// The Leader takes the first connection that is confirmed; the Follower's is confirmed by the Leader's choice.
    fn choose(&mut self, handshake: LinkHandshake, output: &mut BytesMut, now: Instant) -> Stage {
        let (mut sealer, opener) = handshake.into_pipe().expect("confirmed");
        if self.connecting == Some(Role::Leader) {
            sealer.seal(&[KCM], output).expect("short");
        }
        assert!(self.manager.handle_selected(now), "the manager was connecting");
        self.connecting = None;
        self.mux.link_up();
        Stage::Chosen(Box::new((sealer, opener)))
    }

    /// Reading stops while a receive limit is reached.
    pub(crate) fn wants_input(&self) -> bool {
        self.connection.is_some() && !self.mux.read_paused()
    }

    /// Hands over what is complete, also what waited behind a pause.
    pub(crate) fn open_records(&mut self) {
        let Some(Connection { stage: Stage::Chosen(pipe), .. }) = &mut self.connection else { return };
        while !self.mux.read_paused() {
            let Some(message) = pipe.1.next_message().expect("honest bytes") else { return };
            let record = Record::decode(message).expect("an honest record");
            self.records += 1;
            self.mux.handle_record(record).expect("an honest peer");
        }
    }

    /// Seals what the multiplexer has to say.
    pub(crate) fn transmit(&mut self) {
        let Some(Connection { stage: Stage::Chosen(pipe), output }) = &mut self.connection else {
            return;
        };
        while output.len() < WRITE_AHEAD {
            let Some(record) = self.mux.poll_transmit() else { return };
            pipe.0.seal(&[record.header().as_ref(), record.body()], output).expect("within the limits");
        }
    }

    pub(crate) fn check_memory(&mut self) {
        // Only the bounds matter here; the events of this side are asked for by polling.
        while self.mux.poll_event().is_some() {}
        let usage = self.mux.usage();
        let (record, slack) = (1500 + 2 * dilated_subchannel::mux::RECORD_OVERHEAD, 4096);
        assert!(usage.outbox_bytes <= LIMITS.outbox + record + slack, "{usage:?}");
        // Reading pauses behind the record that reached the limit.
        assert!(usage.receive_bytes <= LIMITS.total + record, "{usage:?}");
    }

    pub(crate) fn take_output(&mut self, at_most: usize) -> Bytes {
        match &mut self.connection {
            Some(connection) => {
                let length = connection.output.len().min(at_most);
                connection.output.split_to(length).freeze()
            }
            None => Bytes::new(),
        }
    }
}
