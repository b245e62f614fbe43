//! The relay: joins those who come with the same token.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use dilated_transit::relay::{ClientId, Decision, FirstLine, Rendezvous, Token};

use crate::network::{Network, Notice, Place, RELAY};

/// The port that it listens on.
pub(crate) const PORT: u16 = 4001;

enum Client {
    /// Has not said for whom it waits.
    New(BytesMut),
    Waiting(Token),
    Joined {
        partner: Place,
        unsent: BytesMut,
    },
}

pub(crate) struct Relay {
    rendezvous: Rendezvous,
    clients: BTreeMap<Place, Client>,
}

impl Relay {
    pub(crate) fn start(network: &mut Network) -> Relay {
        network.hosts[RELAY].port = Some(PORT);
        Relay { rendezvous: Rendezvous::new(100, 10), clients: BTreeMap::new() }
    }

    /// Its process ends; whoever is connected gets a reset.
    pub(crate) fn stop(&mut self, network: &mut Network) {
        network.hosts[RELAY].port = None;
        network.kill(RELAY);
        *self = Relay { rendezvous: Rendezvous::new(100, 10), clients: BTreeMap::new() };
    }

    pub(crate) fn handle(&mut self, place: Place, notice: Notice, network: &mut Network) {
        match notice {
            Notice::Accepted => {
                self.clients.insert(place, Client::New(BytesMut::new()));
            }
            Notice::Ready => self.read(place, network),
            Notice::Connected | Notice::Refused => unreachable!("the relay dials nobody"),
        }
    }

    fn read(&mut self, place: Place, network: &mut Network) {
        let Some(client) = self.clients.get_mut(&place) else { return };
        if let Client::Joined { unsent, .. } = client {
            let _ = network.write(place, unsent);
        }
        let Ok(bytes) = network.read(place) else { return self.drop_client(place, network) };
        match client {
            Client::New(line) => {
                line.extend_from_slice(&bytes);
                if let FirstLine::Request(request, length) = FirstLine::parse(line) {
                    line.advance(length);
                    assert!(line.is_empty(), "the client was impatient");
                    let decision = self.rendezvous.register(&request, ClientId(place.connection));
                    self.decide(place, request.token, decision, network);
                }
            }
            Client::Waiting(_) => assert!(bytes.is_empty(), "the client was impatient"),
            Client::Joined { partner, .. } => {
                let partner = *partner;
                if let Some(Client::Joined { unsent, .. }) = self.clients.get_mut(&partner) {
                    unsent.extend_from_slice(&bytes);
                    let _ = network.write(partner, unsent);
                }
            }
        }
    }

    fn decide(&mut self, place: Place, token: Token, decision: Decision, network: &mut Network) {
        let at = |id: ClientId| Place { connection: id.0, end: 1 };
        match decision {
            Decision::Wait { replaced } => {
                self.clients.insert(place, Client::Waiting(token));
                if let Some(replaced) = replaced {
                    self.drop_client(at(replaced), network);
                }
            }
            Decision::Pair { partner, redundant } => {
                let partner = at(partner);
                network.join(place, partner);
                for (one, other) in [(place, partner), (partner, place)] {
                    let mut unsent = BytesMut::from(&b"ok\n"[..]);
                    let _ = network.write(one, &mut unsent);
                    self.clients.insert(one, Client::Joined { partner: other, unsent });
                }
                for id in redundant {
                    self.drop_client(at(id), network);
                }
            }
            Decision::Full => self.drop_client(place, network),
        }
    }

    fn drop_client(&mut self, place: Place, network: &mut Network) {
        network.finish(place);
        match self.clients.remove(&place) {
            Some(Client::Waiting(token)) => {
                self.rendezvous.unregister(&token, ClientId(place.connection));
            }
            Some(Client::Joined { partner, .. }) => self.drop_client(partner, network),
            Some(Client::New(_)) | None => {}
        }
    }
}
