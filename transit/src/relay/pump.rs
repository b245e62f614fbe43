//! Copies between two partners until one of them is gone.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

use super::config::RelayConfig;
use crate::net::linger;

/// Why one direction ended. Everything that was read has been written, unless the destination failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The source closed, or its connection broke.
    SourceGone,
    /// The destination's connection broke.
    DestinationGone,
}

/// Relays between two partners until one of them is gone, then lets the other have what is on its way.
///
/// There is no half-close, as in the Python relay: a partner that stops sending is gone.
pub(super) async fn relay(mut one: TcpStream, mut two: TcpStream, config: &RelayConfig, relayed: &AtomicU64) {
    let moved = AtomicU64::new(0);
    let moving = |count: u64| {
        moved.fetch_add(1, Ordering::Relaxed);
        relayed.fetch_add(count, Ordering::Relaxed);
    };
    let (one_gone, two_gone) = {
        let (mut one_read, mut one_write) = one.split();
        let (mut two_read, mut two_write) = two.split();
        let forward = copy(&mut one_read, &mut two_write, config.buffer, &moving);
        let backward = copy(&mut two_read, &mut one_write, config.buffer, &moving);
        tokio::pin!(forward, backward);
        tokio::select! {
            end = &mut forward => match end {
                End::SourceGone => (true, false),
                // A partner that closed with our bytes unread shows as a broken write before its own last bytes
                // have been read. They still count.
                End::DestinationGone => {
                    let _ = timeout(config.flush_timeout, backward).await;
                    (false, true)
                }
            },
            end = &mut backward => match end {
                End::SourceGone => (false, true),
                End::DestinationGone => {
                    let _ = timeout(config.flush_timeout, forward).await;
                    (true, false)
                }
            },
            () = idle(config.pair_idle, &moved) => (false, false),
        }
    };
    if !one_gone && !two_gone {
        tracing::debug!("a pair was idle for too long");
    }
    let close_one = async {
        if !one_gone {
            linger(&mut one, config.flush_timeout).await;
        }
    };
    let close_two = async {
        if !two_gone {
            linger(&mut two, config.flush_timeout).await;
        }
    };
    tokio::join!(close_one, close_two);
}

/// One direction: read some, write all of it, and only then read again. That is all the back-pressure.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    buffer: usize,
    moved: &impl Fn(u64),
) -> End {
    let mut buffer = vec![0; buffer.max(1)];
    loop {
        let len = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return End::SourceGone,
            Ok(len) => len,
        };
        moved(len as u64);
        if to.write_all(&buffer[..len]).await.is_err() {
            return End::DestinationGone;
        }
        moved(0);
    }
}

/// Ends when nothing has moved for a while. Looks four times in that time, so it may be late by a quarter.
async fn idle(after: Duration, moved: &AtomicU64) {
    let mut look = interval((after / 4).max(Duration::from_millis(1)));
    // Time in which we did not look ourselves, asleep or without processor time, is one look and not many.
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut quiet) = (moved.load(Ordering::Relaxed), 0);
    look.tick().await;
    while quiet < 4 {
        look.tick().await;
        let current = moved.load(Ordering::Relaxed);
        quiet = if current == last { quiet + 1 } else { 0 };
        last = current;
    }
}
