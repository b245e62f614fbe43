//! The requests of clients, one handler each. The order of the checks is the Python server's, because clients
//! see which error comes first.

use rand::Rng;
use serde_json::{Map, Value, json};

use super::{
    core::{Binding, Connection, Core, message_json},
    store::{Message, Mood, Store, scalar_len},
};

/// A request failed: what to tell the client, and whether to hang up after that.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) text: String,
    pub(super) close: Option<(u16, &'static str)>,
}

impl Fault {
    /// The client may go on.
    pub(super) fn error(text: impl Into<String>) -> Self {
        Self { text: text.into(), close: None }
    }

    /// The client must not go on. The Python server aborts the TCP connection without a word in these cases,
    /// which sends a client that knows nothing into a loop of reconnections; a proper error ends it.
    pub(super) fn fatal(text: impl Into<String>, code: u16, reason: &'static str) -> Self {
        Self { text: text.into(), close: Some((code, reason)) }
    }

    fn invalid(text: impl Into<String>) -> Self {
        Self::fatal(text, 1008, "invalid request")
    }
}

/// A payload as a JSON object.
pub(super) fn parse(payload: &[u8]) -> Result<Map<String, Value>, Fault> {
    // The parser itself limits nesting, and checks that strings are UTF-8.
    match serde_json::from_slice(payload) {
        Ok(Value::Object(request)) => Ok(request),
        Ok(_) => Err(Fault::invalid("messages must be JSON objects")),
        Err(error) => {
            Err(Fault::fatal(format!("messages must be JSON text: {error}"), 1007, "message is not JSON"))
        }
    }
}

/// A key that must be a string if the request is to make sense at all.
fn string<'a>(request: &'a Map<String, Value>, key: &str) -> Result<&'a str, Fault> {
    request
        .get(key)
        .and_then(Value::as_str)
        .ok_or_else(|| Fault::invalid(format!("'{key}' must be a string")))
}

/// A key that may be left out after an earlier request had it, and may not differ from it then.
fn string_as_before<'a>(
    request: &'a Map<String, Value>,
    key: &str,
    before: Option<&'a str>,
    differs: &'static str,
    missing: &'static str,
) -> Result<&'a str, Fault> {
    match (request.get(key), before) {
        (Some(value), Some(before)) if value.as_str() != Some(before) => Err(Fault::error(differs)),
        (Some(_), _) => string(request, key),
        (None, before) => before.ok_or_else(|| Fault::error(missing)),
    }
}

fn at_most(key: &str, len: usize, most: usize) -> Result<(), Fault> {
    if len > most { Err(Fault::error(format!("'{key}' may have at most {most} bytes"))) } else { Ok(()) }
}

/// The Python server takes up to 40 digits, and aborts for anything else.
fn check_nameplate(name: &str) -> Result<(), Fault> {
    if name.is_empty() || name.len() > 40 || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::invalid("'nameplate' must be 1 to 40 digits"));
    }
    Ok(())
}

impl<S: Store> Core<S> {
    /// Runs one request.
    pub(super) fn request(
        &mut self,
        connection: &mut Connection,
        request: &Map<String, Value>,
        now: f64,
        rng: &mut impl Rng,
    ) -> Result<(), Fault> {
        let Some(kind) = request.get("type") else { return Err(Fault::error("missing 'type'")) };
        self.send(connection.id, now, "ack", json!({ "id": request.get("id") }));
        match kind.as_str() {
            Some("ping") => return self.ping(connection, request, now),
            Some("bind") => return self.bind(connection, request),
            _ => {}
        }
        let binding = connection.binding.clone().ok_or_else(|| Fault::error("must bind first"))?;
        match kind.as_str() {
            Some("list") => self.list(connection, &binding, now),
            Some("allocate") => self.allocate(connection, &binding, now, rng),
            Some("claim") => self.claim(connection, &binding, request, now, rng),
            Some("release") => self.release(connection, &binding, request, now),
            Some("open") => self.open(connection, &binding, request, now),
            Some("add") => self.add(connection, &binding, request, now),
            Some("close") => self.close_mailbox(connection, &binding, request, now),
            _ => Err(Fault::error("unknown type")),
        }
    }

    fn ping(&mut self, connection: &Connection, request: &Map<String, Value>, now: f64) -> Result<(), Fault> {
        let ping = request.get("ping").ok_or_else(|| Fault::error("ping requires 'ping'"))?;
        self.send(connection.id, now, "pong", json!({ "pong": ping }));
        Ok(())
    }

    fn bind(&mut self, connection: &mut Connection, request: &Map<String, Value>) -> Result<(), Fault> {
        if connection.binding.is_some() {
            return Err(Fault::error("already bound"));
        }
        for key in ["appid", "side"] {
            if !request.contains_key(key) {
                return Err(Fault::error(format!("bind requires '{key}'")));
            }
        }
        let (app, side) = (string(request, "appid")?, string(request, "side")?);
        at_most("appid", app.len(), self.config.limits.app_id_length)?;
        at_most("side", side.len(), self.config.limits.side_length)?;
        connection.binding = Some(Binding { app: app.into(), side: side.into() });
        Ok(())
    }

    fn list(&mut self, connection: &Connection, binding: &Binding, now: f64) -> Result<(), Fault> {
        let names = if self.config.allow_list { self.registry.list(&binding.app)? } else { Vec::new() };
        let nameplates: Vec<Value> = names.into_iter().map(|name| json!({ "id": name })).collect();
        self.send(connection.id, now, "nameplates", json!({ "nameplates": nameplates }));
        Ok(())
    }

    fn allocate(
        &mut self,
        connection: &mut Connection,
        binding: &Binding,
        now: f64,
        rng: &mut impl Rng,
    ) -> Result<(), Fault> {
        if connection.allocated {
            return Err(Fault::error("you already allocated one, don't be greedy"));
        }
        let (registry, quota) = self.registry_and_quota(connection.address);
        let name = registry.allocate(&binding.app, &binding.side, quota, now, rng)?;
        connection.allocated = true;
        self.send(connection.id, now, "allocated", json!({ "nameplate": name }));
        Ok(())
    }

    fn claim(
        &mut self,
        connection: &mut Connection,
        binding: &Binding,
        request: &Map<String, Value>,
        now: f64,
        rng: &mut impl Rng,
    ) -> Result<(), Fault> {
        if !request.contains_key("nameplate") {
            return Err(Fault::error("claim requires 'nameplate'"));
        }
        if connection.claimed.is_some() {
            return Err(Fault::error("only one claim per connection"));
        }
        let name = string(request, "nameplate")?;
        check_nameplate(name)?;
        connection.claimed = Some(name.into());
        let (registry, quota) = self.registry_and_quota(connection.address);
        let mailbox = registry.claim(&binding.app, name, &binding.side, quota, now, rng)?;
        self.send(connection.id, now, "claimed", json!({ "mailbox": mailbox }));
        Ok(())
    }

    fn release(
        &mut self,
        connection: &mut Connection,
        binding: &Binding,
        request: &Map<String, Value>,
        now: f64,
    ) -> Result<(), Fault> {
        if connection.released {
            return Err(Fault::error("only one release per connection"));
        }
        let name = string_as_before(
            request,
            "nameplate",
            connection.claimed.as_deref(),
            "release and claim must use same nameplate",
            "release without nameplate must follow claim",
        )?;
        self.registry.release(&binding.app, name, &binding.side, now)?;
        connection.released = true;
        self.send(connection.id, now, "released", json!({}));
        Ok(())
    }

    fn open(
        &mut self,
        connection: &mut Connection,
        binding: &Binding,
        request: &Map<String, Value>,
        now: f64,
    ) -> Result<(), Fault> {
        if connection.subscribed {
            return Err(Fault::error("only one open per connection"));
        }
        if !request.contains_key("mailbox") {
            return Err(Fault::error("open requires 'mailbox'"));
        }
        let id = string(request, "mailbox")?;
        at_most("mailbox", id.len(), self.config.limits.mailbox_id_length)?;
        connection.mailbox = Some(id.into());
        let (registry, quota) = self.registry_and_quota(connection.address);
        let messages = registry.open(&binding.app, id, &binding.side, quota, now)?;
        self.subscribe(connection, binding, id);
        for message in &messages {
            self.send(connection.id, now, "message", message_json(message));
        }
        Ok(())
    }

    fn add(
        &mut self,
        connection: &mut Connection,
        binding: &Binding,
        request: &Map<String, Value>,
        now: f64,
    ) -> Result<(), Fault> {
        let Some(id) = connection.mailbox.as_deref().filter(|_| connection.subscribed) else {
            return Err(Fault::error("must open mailbox before adding"));
        };
        for key in ["phase", "body"] {
            if !request.contains_key(key) {
                return Err(Fault::error(format!("missing '{key}'")));
            }
        }
        let scalar = |key: &str, most: usize| match request.get(key) {
            Some(Value::Array(_) | Value::Object(_)) => {
                Err(Fault::invalid(format!("'{key}' must be a string, not a list or an object")))
            }
            Some(value) => at_most(key, scalar_len(value), most).map(|()| value.clone()),
            None => Ok(Value::Null),
        };
        let limits = &self.config.limits;
        let message = Message {
            side: binding.side.clone(),
            phase: scalar("phase", limits.phase_length)?,
            body: scalar("body", limits.body_bytes)?,
            id: scalar("id", limits.phase_length)?,
            server_rx: now,
        };
        self.registry.add(&binding.app, id, message.clone())?;
        self.broadcast(binding, id, &message, now);
        Ok(())
    }

    fn close_mailbox(
        &mut self,
        connection: &mut Connection,
        binding: &Binding,
        request: &Map<String, Value>,
        now: f64,
    ) -> Result<(), Fault> {
        if connection.closed {
            return Err(Fault::error("only one close per connection"));
        }
        let id = string_as_before(
            request,
            "mailbox",
            connection.mailbox.as_deref(),
            "open and close must use same mailbox",
            "close without mailbox must follow open",
        )?;
        let id = id.to_owned();
        let mood = Mood::from_json(request.get("mood"));
        let gone = self.registry.close(&binding.app, &id, &binding.side, mood, now)?;
        self.unsubscribe(connection);
        if gone {
            self.drop_subscribers(binding, &id);
        }
        connection.closed = true;
        self.send(connection.id, now, "closed", json!({}));
        Ok(())
    }
}
