//! A SOCKS5 server on loopback with names that nobody else knows.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

const VERSION: u8 = 5;
const NO_PASSWORD: u8 = 0;
const PASSWORD: u8 = 2;
const CONNECT: u8 = 1;

/// The server (RFC 1928, RFC 1929). Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Socks {
    names: Arc<Mutex<BTreeMap<String, SocketAddr>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// A user and the password, without which nobody is served.
    password: Option<(String, String)>,
}

impl Socks {
    /// One that serves only this user.
    pub fn with_password(user: &str, password: &str) -> Socks {
        Socks { password: Some((user.to_owned(), password.to_owned())), ..Socks::default() }
    }

    /// Listens on a free port of loopback, until the tokio runtime ends in which it must be called.
    ///
    /// # Errors
    ///
    /// When nothing can listen there.
    pub async fn start(&self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let socks = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let socks = socks.clone();
                // An error is the end of that client.
                tokio::spawn(async move { drop(socks.serve(client).await) });
            }
        });
        Ok(address)
    }

    /// Who asks for `name`, a host and a port, gets to `address`.
    pub fn name(&self, name: &str, address: SocketAddr) {
        lock(&self.names).insert(name.to_owned(), address);
    }

    /// What it was asked for, in order: hosts with ports.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }

    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut methods = [0; 2];
        client.read_exact(&mut methods).await?;
        assert_eq!(methods[0], VERSION);
        let mut methods = vec![0; methods[1].into()];
        client.read_exact(&mut methods).await?;
        let method = if self.password.is_some() { PASSWORD } else { NO_PASSWORD };
        if !methods.contains(&method) {
            return client.write_all(&[VERSION, 0xff]).await;
        }
        client.write_all(&[VERSION, method]).await?;
        if let Some(password) = &self.password {
            assert_eq!(client.read_u8().await?, 1);
            let said = (text(&mut client).await?, text(&mut client).await?);
            client.write_all(&[1, u8::from(said != *password)]).await?;
        }
        let mut request = [0; 4];
        client.read_exact(&mut request).await?;
        assert_eq!(request[..3], [VERSION, CONNECT, 0]);
        let host = match request[3] {
            1 => Ipv4Addr::from(client.read_u32().await?).to_string(),
            3 => text(&mut client).await?,
            other => panic!("address type {other}"),
        };
        let asked = format!("{host}:{}", client.read_u16().await?);
        lock(&self.asked).push(asked.clone());
        let known = lock(&self.names).get(&asked).copied();
        let server = match known.or_else(|| asked.parse().ok()) {
            Some(address) => TcpStream::connect(address).await,
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let code = match &server {
            Ok(_) => 0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 4,
            Err(_) => 5,
        };
        client.write_all(&[VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        copy_bidirectional(&mut client, &mut server?).await.map(drop)
    }
}

async fn text(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut text).await?;
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A task that panicked makes its own test fail.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
