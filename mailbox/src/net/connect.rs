//! TCP, TLS and the websocket handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig as TlsConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::race::{Attempt, Race};
use super::{Dialer, MailboxUrl};

/// How long one address of a host may be silent before the next is tried beside it, as RFC 8305 advises.
const STAGGER: Duration = Duration::from_millis(250);

/// How many addresses of a host are tried at most. Whoever answers for its name says how many there are.
const ADDRESSES: usize = 16;

pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// An open websocket.
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// Our end of the TCP connection.
    pub(super) local: SocketAddr,
}

/// A TCP connection, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects, and returns the reason as a sentence's part if that fails. There is no time limit here.
pub(super) async fn connect(
    url: MailboxUrl,
    extra_roots: Vec<CertificateDer<'static>>,
    dialer: Option<Dialer>,
    max_message: usize,
) -> Result<Connection, String> {
    let tcp = match dialer {
        Some(dialer) => dialer.dial(url.host(), url.port()).await.map_err(|error| error.to_string())?,
        None => dial(url.host(), url.port()).await?,
    };
    let local = tcp.local_addr().map_err(|error| error.to_string())?;
    // Messages are small and each is a step of a dialogue.
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream: Box<dyn Stream> = if url.is_tls() {
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|_| format!("'{}' cannot be the name in a certificate", url.host()))?;
        let tls = TlsConnector::from(Arc::new(tls_config(extra_roots).map_err(|error| error.to_string())?));
        let tls = tls.connect(name, tcp).await.map_err(|error| format!("TLS failed: {error}"))?;
        Box::new(tls)
    } else {
        Box::new(tcp)
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(16 << 10)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    let (socket, _response) =
        tokio_tungstenite::client_async_with_config(url.to_string(), stream, Some(config))
            .await
            .map_err(|error| format!("it is not a websocket server: {error}"))?;
    Ok(Connection { socket, local })
}

/// Tries the addresses of a host, so that one which swallows packets, often of the other IP version, costs little.
async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| format!("the name '{host}' cannot be resolved: {error}"))?;
    let attempts = addresses.take(ADDRESSES).map(|address| -> Attempt<TcpStream> {
        Box::pin(async move { TcpStream::connect(address).await.map_err(|error| error.to_string()) })
    });
    let failure =
        |reason: Option<String>| reason.unwrap_or_else(|| format!("the name '{host}' has no address"));
    Race::new(attempts, STAGGER).winner().await.map_err(failure)
}

fn tls_config(extra_roots: Vec<CertificateDer<'static>>) -> Result<TlsConfig, rustls::Error> {
    // Named, because a process-wide default provider is the application's business.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra_roots, provider.clone())?;
    Ok(TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}
