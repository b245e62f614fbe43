//! The endpoints that an application uses after `dilate()`: the control, client and server triple, and connectors
//! and listeners by name.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use dilated_mailbox::WormholeError;
use dilated_subchannel::{
    Connector, Listener, Multiplexer, Subchannel, Usage,
    io::{AcceptError, ConnectError},
    mux::{ListenError, NameError},
};
use dilated_transit::{Path, Role};
use futures::{
    FutureExt, Stream,
    stream::{BoxStream, StreamExt},
};
use tokio::sync::watch;

use crate::{
    config::{ControlOpener, DilateConfig},
    error::DilationError,
    generation::Generation,
    status::{DilationStatus, LinkStatus},
    wormhole::{Handle, Wormhole},
};

/// What the driver needs to begin.
#[derive(Debug)]
pub(crate) struct DilateRequest {
    pub(crate) config: Arc<DilateConfig>,
    pub(crate) mux: Multiplexer,
    pub(crate) status: watch::Sender<DilationStatus>,
}

/// A wormhole that dilates: the source of subchannels, and of the link's status.
///
/// It keeps the wormhole alive. Subchannels do not: when every [`Wormhole`] clone, the `Dilated` and its endpoints
/// are gone, they fail.
#[derive(Debug)]
pub struct Dilated {
    wormhole: Wormhole,
    config: Arc<DilateConfig>,
    mux: Multiplexer,
    status: watch::Receiver<DilationStatus>,
    triple: Option<(Listener, Listener)>,
}

impl Dilated {
    pub(crate) fn new(
        wormhole: Wormhole,
        config: DilateConfig,
    ) -> Result<(Dilated, DilateRequest), DilationError> {
        let refuse = |e: &dyn std::error::Error| DilationError::Config(e.to_string());
        let mux = Multiplexer::new(config.mux.clone());
        let control = mux.listen(&config.control_name).map_err(|e| refuse(&e))?;
        let stream = mux.listen(&config.stream_name).map_err(|e| refuse(&e))?;
        for name in &config.expected_subprotocols {
            mux.expect(name).map_err(|e| refuse(&e))?;
        }
        let (status_sender, status) = watch::channel(DilationStatus {
            mailbox: wormhole.status(),
            role: None,
            dialect: None,
            generation: Generation::default(),
            link: LinkStatus::Waiting,
            standby: None,
        });
        let config = Arc::new(config);
        let request = DilateRequest { config: Arc::clone(&config), mux: mux.clone(), status: status_sender };
        Ok((Dilated { wormhole, config, mux, status, triple: Some((control, stream)) }, request))
    }

    /// The three virtual endpoints. `None` when they were taken before: control and server are single-use.
    pub fn endpoints(&mut self) -> Option<(Control, Client, Server)> {
        let (control, stream) = self.triple.take()?;
        let handle = &self.wormhole.handle;
        let connector =
            |name: &str| self.mux.connector(name).expect("the name was accepted by `listen` before");
        let control = Control {
            mux: self.mux.clone(),
            connector: connector(&self.config.control_name),
            listener: control,
            opener: self.config.control_opener,
            status: self.status.clone(),
            _handle: Arc::clone(handle),
        };
        let client = Client { connector: connector(&self.config.stream_name), _handle: Arc::clone(handle) };
        let server = Server { listener: stream, _handle: Arc::clone(handle) };
        Some((control, client, server))
    }

    /// Opens subchannels of the subprotocol `name`, as often as wanted.
    ///
    /// # Errors
    ///
    /// A name that is empty or too long.
    pub fn connector_for(&self, name: &str) -> Result<Connector, NameError> {
        self.mux.connector(name)
    }

    /// Accepts subchannels of the subprotocol `name`. One listener a name; dropping it makes further opens
    /// unexpected, which closes them.
    ///
    /// # Errors
    ///
    /// A bad name, or a listener that exists (those of the triple's names do until the `Dilated` or its endpoint
    /// is dropped).
    pub fn listener_for(&self, name: &str) -> Result<Listener, ListenError> {
        self.mux.listen(name)
    }

    /// Waits for a link and tells how it was reached.
    ///
    /// # Errors
    ///
    /// Why there will never be one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn connected(&self) -> Result<Path, DilationError> {
        let mut status = self.status.clone();
        loop {
            let link = status.borrow_and_update().link.clone();
            match link {
                LinkStatus::Connected { path, .. } => return Ok(path),
                LinkStatus::Stopped { .. } => return Err(self.end()),
                _ => {}
            }
            if status.changed().await.is_err() {
                return Err(self.end());
            }
        }
    }

    /// The state at this moment.
    pub fn status(&self) -> DilationStatus {
        self.status.borrow().clone()
    }

    /// The state now and at every change. A slow reader misses states in between, never the last. Ends with the
    /// wormhole.
    pub fn status_changes(&self) -> BoxStream<'static, DilationStatus> {
        let mut status = self.status.clone();
        status.mark_changed();
        futures::stream::unfold(status, |mut status| async move {
            status.changed().await.ok()?;
            let now = status.borrow_and_update().clone();
            Some((now, status))
        })
        .boxed()
    }

    /// Memory and subchannels in use.
    pub fn usage(&self) -> Usage {
        self.mux.usage()
    }

    /// Gives the current link up at once, without flushing. Nothing is lost: as Leader a new generation starts, as
    /// Follower when the Leader notices. For programs that know better than the timers, say after a change of
    /// network.
    pub fn abandon_link(&self) {
        self.wormhole.handle.shared.requests().abandon_link = true;
        self.wormhole.handle.shared.wake();
    }

    fn end(&self) -> DilationError {
        match self.status().link {
            LinkStatus::Stopped { error: Some(error) } => error,
            _ => DilationError::Wormhole(WormholeError::Closed),
        }
    }
}

/// The control channel: one subchannel that both sides use. In `dilated-1` it is there from the beginning; in `ged` one
/// side opens it ([`ControlOpener`]). Single-use.
#[derive(Debug)]
pub struct Control {
    mux: Multiplexer,
    connector: Connector,
    listener: Listener,
    opener: ControlOpener,
    status: watch::Receiver<DilationStatus>,
    _handle: Arc<Handle>,
}

impl Control {
    /// Waits until the subchannel can be used, in `ged` for the other side's control endpoint, and returns it.
    ///
    /// # Errors
    ///
    /// The end of the wormhole.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the endpoint.
    pub async fn connect(mut self) -> Result<Subchannel, ConnectError> {
        if let Some(subchannel) = self.mux.control().await? {
            return Ok(subchannel);
        }
        let opens = match self.opener {
            ControlOpener::Open => true,
            ControlOpener::Listen => false,
            ControlOpener::ByRole => self.leads().await,
        };
        // A far end that opens although we lead (a Python program, perhaps) is taken at its word.
        match self.listener.accept().now_or_never() {
            Some(Ok(subchannel)) => Ok(subchannel),
            None if !opens => self.listener.accept().await.map_err(|error| ConnectError::Ended(error.0)),
            _ => self.connector.connect().await,
        }
    }

    async fn leads(&mut self) -> bool {
        // When the wormhole ends first, `connect` has the reason.
        let status =
            self.status.wait_for(|s| s.role.is_some() || matches!(s.link, LinkStatus::Stopped { .. })).await;
        status.is_ok_and(|status| status.role == Some(Role::Leader))
    }
}

/// Opens subchannels to the other side's [`Server`]. Reusable and cloneable.
#[derive(Debug, Clone)]
pub struct Client {
    connector: Connector,
    _handle: Arc<Handle>,
}

impl Client {
    /// Opens a subchannel. Waits until the roles are known, not for the peer to accept: what is written meanwhile
    /// is queued.
    ///
    /// # Errors
    ///
    /// The limit of subchannels, or the end of the wormhole.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a subchannel is opened only when it is returned.
    pub async fn connect(&self) -> Result<Subchannel, ConnectError> {
        self.connector.connect().await
    }
}

/// Yields the subchannels that the other side's [`Client`] opens. Single-use; also a [`Stream`].
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    _handle: Arc<Handle>,
}

impl Server {
    /// The next incoming subchannel.
    ///
    /// # Errors
    ///
    /// The end of the wormhole.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a subchannel is taken only when it is returned.
    pub async fn accept(&mut self) -> Result<Subchannel, AcceptError> {
        self.listener.accept().await
    }
}

impl Stream for Server {
    type Item = Result<Subchannel, AcceptError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.listener.poll_next_unpin(cx)
    }
}
