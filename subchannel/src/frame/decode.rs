//! The plaintext of a record, taken apart.

use bytes::Bytes;

use super::{Frame, Mark, Received, Violation, cut, kind};
use crate::{
    id::SubchannelId,
    record::{MAX_NAME_LEN, Name},
};

/// Takes the plaintext of a record apart. After an error it gives nothing more.
#[derive(Clone, Debug)]
pub struct Frames {
    record: Bytes,
    at: usize,
}

impl Frames {
    /// The frames of a record's plaintext.
    pub fn new(record: Bytes) -> Self {
        Frames { record, at: 0 }
    }

    fn frame(&mut self, kind: u8) -> Result<Frame, Violation> {
        Ok(match kind {
            kind::PADDING => Frame::Padding,
            kind::PING => Frame::Ping(self.varint()?),
            kind::PONG => Frame::Pong(self.varint()?),
            kind::RESUME => self.resume()?,
            kind::OPEN => {
                let (id, limit, priority) = (self.id()?, self.varint()?, self.varint()?);
                let priority = u8::try_from(priority).map_or(7, |level| level.min(7));
                Frame::Open { id, limit, priority, name: self.name()? }
            }
            kind::CREDIT => Frame::Credit(self.received()?),
            kind::LINK_CREDIT => Frame::LinkCredit(self.varint()?),
            kind::MAX_SUBCHANNELS => Frame::MaxSubchannels(self.varint()?),
            kind::RESET => {
                Frame::Reset { id: self.id()?, code: self.varint()?, final_offset: self.varint()? }
            }
            kind::STOP => Frame::Stop { id: self.id()?, code: self.varint()? },
            kind::REFUSE => Frame::Refuse { id: self.id()?, code: self.varint()? },
            kind::DATAGRAM => Frame::Datagram { id: self.id()?, data: self.bytes()? },
            kind::GOODBYE => {
                let (code, reason) = (self.varint()?, self.text()?);
                Frame::Goodbye { code, reason: cut(reason).to_owned() }
            }
            kind::DATA..=kind::DATA_LAST => {
                let mark = [Mark::Stream, Mark::More, Mark::End][usize::from((kind - kind::DATA) / 2)];
                let (id, offset, fin) = (self.id()?, self.varint()?, kind & 1 == 1);
                let data = self.bytes()?;
                if data.is_empty() && mark != Mark::End && !fin {
                    return Err(Violation::new(
                        Violation::FRAME,
                        "the peer sent a DATA frame without any unit",
                    ));
                }
                Frame::Data { id, offset, mark, fin, data }
            }
            _ => {
                let text = format!("the peer sent a frame of the unknown type {kind:#04x}");
                return Err(Violation::new(Violation::FRAME, text));
            }
        })
    }

    fn resume(&mut self) -> Result<Frame, Violation> {
        let (epoch, more, count) = (self.varint()?, self.varint()?, self.varint()?);
        if more > 1 {
            return Err(Violation::new(
                Violation::FRAME,
                "the peer sent a RESUME that neither ends nor goes on",
            ));
        }
        // An entry has at least three bytes: the count is checked before it is believed.
        let most = (self.record.len() - self.at) / 3;
        let count =
            usize::try_from(count).ok().filter(|count| *count <= most).ok_or_else(Violation::cut_off)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(self.received()?);
        }
        Ok(Frame::Resume { epoch, more: more == 1, entries })
    }

    fn received(&mut self) -> Result<Received, Violation> {
        Ok(Received { id: self.id()?, received: self.varint()?, limit: self.varint()? })
    }

    fn id(&mut self) -> Result<SubchannelId, Violation> {
        let id = self.varint()?;
        u32::try_from(id).map(SubchannelId).map_err(|_| {
            Violation::new(Violation::STATE, format!("the peer used {id} as the number of a subchannel"))
        })
    }

    fn varint(&mut self) -> Result<u64, Violation> {
        let rest = &self.record[self.at..];
        let first = *rest.first().ok_or_else(Violation::cut_off)?;
        let len = 1 << (first >> 6);
        let bytes = rest.get(1..len).ok_or_else(Violation::cut_off)?;
        self.at += len;
        Ok(bytes.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
    }

    /// The range of a run of bytes that follows its length.
    fn run(&mut self) -> Result<std::ops::Range<usize>, Violation> {
        let len = self.varint()?;
        let rest = self.record.len() - self.at;
        let len = usize::try_from(len).ok().filter(|len| *len <= rest).ok_or_else(Violation::cut_off)?;
        let start = self.at;
        self.at += len;
        Ok(start..self.at)
    }

    fn bytes(&mut self) -> Result<Bytes, Violation> {
        let run = self.run()?;
        Ok(self.record.slice(run))
    }

    fn text(&mut self) -> Result<&str, Violation> {
        let run = self.run()?;
        std::str::from_utf8(&self.record[run])
            .map_err(|_| Violation::new(Violation::FRAME, "the peer sent a text that is not UTF-8"))
    }

    fn name(&mut self) -> Result<Name, Violation> {
        let name = self.text()?;
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            let text = format!("the peer opened a subchannel with a name of {} bytes", name.len());
            return Err(Violation::new(Violation::NAME, text));
        }
        Ok(Name::from(name))
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, Violation>;

    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.record.get(self.at)?;
        self.at += 1;
        let frame = self.frame(kind);
        if frame.is_err() {
            self.at = self.record.len();
        }
        Some(frame)
    }
}
