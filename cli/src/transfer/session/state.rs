//! What may be said when: messages in, what is to be done out. No input or output.

use std::{collections::BTreeMap, fmt};

use super::message::{Answer, Code, Directory, Header, Item, Kind, MAX_ITEMS, MAX_TEXT, Message, VERSION};

/// The most items of the other side that may be accepted and not yet complete.
const MAX_UNSETTLED: usize = 10_000;

/// How the other side broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation(String);

impl Violation {
    pub(super) fn new(what: impl Into<String>) -> Violation {
        Violation(what.into())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn violation<T>(what: &str) -> Result<T, Violation> {
    Err(Violation::new(what))
}

/// Which item of which offer of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ItemId {
    pub(super) offer: u64,
    pub(super) item: u64,
}

/// What a message asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Look at what is offered, and answer.
    Decide { offer: u64, items: Vec<Item> },
    /// Our offer was answered.
    Answered(Vec<Answer>),
    /// Make these directories, and set what is known of them, in their order.
    MakeDirectories(ItemId, Vec<Directory>),
    /// Everything of the directory has come: put it in place and say so.
    Finish(ItemId),
    /// The other side has put our directory in place.
    Finished,
    /// The other side gives up.
    Fail { code: Code, message: String },
    /// Nobody has anything left to do.
    Over,
}

/// What comes in a file's subchannel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) id: ItemId,
    /// In a directory.
    pub(super) path: Vec<String>,
    /// `None` for a stream.
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
    pub(super) mtime: Option<i64>,
    /// Whether its sender waits to be told what is here.
    pub(super) resume: bool,
}

/// An item of the other side that was accepted.
#[derive(Debug)]
struct Expected {
    item: Item,
    resume: bool,
    /// What may still come of the bytes and entries that were offered.
    bytes: u64,
    entries: u64,
    /// Files that are coming.
    open: u64,
    /// Everything has come, and is being put in place.
    finishing: bool,
}

/// What both sides have said so far.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    greeted: bool,
    /// How many offers were made by this side, and of each item of the last one, while it is not answered, whether it can
    /// be resumed.
    offers: u64,
    asked: Option<Vec<bool>>,
    /// Directories of ours that were sent and are not in place.
    finishing: Option<ItemId>,
    /// The same of the other side.
    their_offers: u64,
    deciding: Option<Vec<Item>>,
    expected: BTreeMap<ItemId, Expected>,
    we_ended: bool,
    they_ended: bool,
}

impl Conversation {
    /// Takes in a message.
    pub(super) fn hear(&mut self, message: Message) -> Result<Option<Action>, Violation> {
        match message {
            // An error may be the first word: of a side that could not begin.
            Message::Error { code, message } => return Ok(Some(Action::Fail { code, message })),
            Message::Hello { version } if !self.greeted => {
                self.greeted = true;
                return match version {
                    0 => violation("version 0"),
                    // A later one speaks ours with who says so.
                    VERSION.. => Ok(None),
                };
            }
            _ if !self.greeted => return violation("no hello at the beginning"),
            _ => {}
        }
        match message {
            Message::Hello { .. } => violation("a second hello"),
            Message::Offer { offer, items } => self.offered(offer, items).map(Some),
            Message::Answer { offer, items } => self.answered(offer, items).map(Some),
            Message::Directories { offer, item, directories } => {
                let id = ItemId { offer, item };
                self.directories(id, &directories)?;
                Ok(Some(Action::MakeDirectories(id, directories)))
            }
            Message::Finish { offer, item } => {
                let id = ItemId { offer, item };
                self.finish(id)?;
                Ok(Some(Action::Finish(id)))
            }
            Message::Finished { offer, item } => {
                let id = ItemId { offer, item };
                match self.finishing.take() {
                    Some(ours) if ours == id => Ok(Some(Action::Finished)),
                    _ => violation("a directory is finished that was not sent"),
                }
            }
            Message::End if self.they_ended => violation("a second end"),
            Message::End if self.deciding.is_some() || !self.expected.is_empty() => {
                violation("an end before everything that was offered has come")
            }
            Message::End => {
                self.they_ended = true;
                Ok(self.is_over().then_some(Action::Over))
            }
            Message::Error { .. } | Message::Unknown => Ok(None),
        }
    }

    /// Whether both sides have said that they have no more.
    pub(super) fn is_over(&self) -> bool {
        self.we_ended && self.they_ended
    }

    /// Offers `items`. Not before the answer to what was offered before.
    pub(super) fn offer(&mut self, items: Vec<Item>) -> (u64, Message) {
        debug_assert!(self.asked.is_none() && !self.we_ended);
        let offer = self.offers;
        self.offers += 1;
        self.asked = Some(items.iter().map(|item| item.id.is_some()).collect());
        (offer, Message::Offer { offer, items })
    }

    /// All of a directory of ours has arrived.
    pub(super) fn sent(&mut self, id: ItemId) -> Message {
        debug_assert!(self.finishing.is_none());
        self.finishing = Some(id);
        Message::Finish { offer: id.offer, item: id.item }
    }

    /// This side has no more.
    pub(super) fn end(&mut self) -> Message {
        self.we_ended = true;
        Message::End
    }

    /// Answers what [`Action::Decide`] asked: one answer for each item.
    pub(super) fn decide(&mut self, offer: u64, answers: Vec<Answer>) -> Result<Message, Violation> {
        let items = self.deciding.take().expect("an offer that is being decided");
        debug_assert_eq!(items.len(), answers.len());
        for (index, (item, answer)) in (0..).zip(items.into_iter().zip(&answers)) {
            // A text has come with its offer.
            if answer.accept && item.kind != Kind::Text {
                let expected = Expected {
                    resume: answer.resume,
                    bytes: item.size.unwrap_or(0),
                    entries: if item.kind == Kind::Directory { item.count.unwrap_or(0) } else { 1 },
                    open: 0,
                    finishing: false,
                    item,
                };
                self.expected.insert(ItemId { offer, item: index }, expected);
            }
        }
        if self.expected.len() > MAX_UNSETTLED {
            return violation("more than can be kept in mind is offered");
        }
        Ok(Message::Answer { offer, items: answers })
    }

    /// A file begins to come.
    pub(super) fn begin(&mut self, header: Header) -> Result<Arrival, Violation> {
        let id = ItemId { offer: header.offer, item: header.item };
        let Some(expected) = self.expected.get_mut(&id) else {
            return violation("a file that was not accepted");
        };
        let in_directory = expected.item.kind == Kind::Directory;
        if in_directory == header.path.is_empty() {
            return violation("a path is missing, or there is one too many");
        }
        let (size, mode, mtime) = if in_directory {
            (Some(header.size.unwrap_or(0)), header.mode, header.mtime)
        } else {
            (expected.item.size, expected.item.mode, expected.item.mtime)
        };
        expected.take(1, size.unwrap_or(0))?;
        expected.open += 1;
        Ok(Arrival { id, path: header.path, size, mode, mtime, resume: expected.resume })
    }

    /// The file is stored.
    pub(super) fn stored(&mut self, id: ItemId) {
        if let Some(expected) = self.expected.get_mut(&id) {
            expected.open -= 1;
            if expected.item.kind != Kind::Directory {
                self.expected.remove(&id);
            }
        }
    }

    /// The directory is in place.
    pub(super) fn finished(&mut self, id: ItemId) -> Message {
        self.expected.remove(&id);
        Message::Finished { offer: id.offer, item: id.item }
    }

    fn offered(&mut self, offer: u64, items: Vec<Item>) -> Result<Action, Violation> {
        if self.they_ended {
            return violation("an offer after the end");
        }
        if self.deciding.is_some() || offer != self.their_offers {
            return violation("an offer out of turn");
        }
        if items.is_empty() || items.len() > MAX_ITEMS {
            return violation("an offer of nothing, or of too much");
        }
        for item in &items {
            let complete = match item.kind {
                Kind::File => item.size.is_some(),
                Kind::Directory => item.size.is_some() && item.count.is_some(),
                Kind::Text => item.text.as_ref().is_some_and(|text| text.len() <= MAX_TEXT),
                // A stream's size is not known before its end.
                Kind::Stream => item.size.is_none(),
                Kind::Unknown => true,
            };
            if !complete {
                return violation("an offer that does not say what it must");
            }
        }
        self.their_offers += 1;
        self.deciding = Some(items.clone());
        Ok(Action::Decide { offer, items })
    }

    fn answered(&mut self, offer: u64, answers: Vec<Answer>) -> Result<Action, Violation> {
        let Some(resumable) = self.asked.take().filter(|ours| ours.len() == answers.len()) else {
            return violation("an answer to what was not asked");
        };
        if offer.checked_add(1) != Some(self.offers) {
            return violation("an answer to what was not asked");
        }
        if answers
            .iter()
            .zip(resumable)
            .any(|(answer, resumable)| answer.resume && !(answer.accept && resumable))
        {
            return violation("an answer that resumes what it cannot");
        }
        Ok(Action::Answered(answers))
    }

    fn directory(&mut self, id: ItemId) -> Result<&mut Expected, Violation> {
        match self.expected.get_mut(&id) {
            Some(expected) if expected.item.kind == Kind::Directory && !expected.finishing => Ok(expected),
            _ => violation("a directory that was not accepted"),
        }
    }

    fn directories(&mut self, id: ItemId, directories: &[Directory]) -> Result<(), Violation> {
        self.directory(id)?.take(directories.len() as u64, 0)
    }

    fn finish(&mut self, id: ItemId) -> Result<(), Violation> {
        let expected = self.directory(id)?;
        if expected.open > 0 || expected.entries > 0 || expected.bytes > 0 {
            return violation("a directory ends before everything that was offered has come");
        }
        expected.finishing = true;
        Ok(())
    }
}

impl Expected {
    fn take(&mut self, entries: u64, bytes: u64) -> Result<(), Violation> {
        match (self.entries.checked_sub(entries), self.bytes.checked_sub(bytes)) {
            (Some(entries), Some(bytes)) => {
                (self.entries, self.bytes) = (entries, bytes);
                Ok(())
            }
            _ => violation("more comes than was offered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn item(kind: Kind, size: Option<u64>, count: Option<u64>) -> Item {
        let text = (kind == Kind::Text).then(|| "x".to_owned());
        Item { kind, name: "x".to_owned(), size, count, id: None, mode: None, mtime: None, text }
    }

    fn answer(accept: bool) -> Answer {
        Answer { accept, resume: false, reason: None }
    }

    fn header(item: u64, path: &[&str], size: Option<u64>) -> Header {
        let path = path.iter().map(ToString::to_string).collect();
        Header { offer: 0, item, path, size, mode: None, mtime: None }
    }

    const HELLO: Message = Message::Hello { version: VERSION };

    /// A sender and a receiver that have greeted each other.
    fn pair() -> (Conversation, Conversation) {
        let mut pair = (Conversation::default(), Conversation::default());
        assert_eq!((pair.0.hear(HELLO), pair.1.hear(HELLO)), (Ok(None), Ok(None)));
        pair
    }

    /// Offers `items`, all of which are taken.
    fn take(sender: &mut Conversation, receiver: &mut Conversation, items: Vec<Item>) {
        let answers = vec![answer(true); items.len()];
        let (offer, message) = sender.offer(items.clone());
        assert_eq!(receiver.hear(message), Ok(Some(Action::Decide { offer, items })));
        let message = receiver.decide(offer, answers.clone()).unwrap();
        assert_eq!(sender.hear(message), Ok(Some(Action::Answered(answers))));
    }

    #[test]
    fn a_session_from_beginning_to_end() {
        let (mut sender, mut receiver) = pair();
        let items = vec![
            item(Kind::File, Some(5), None),
            item(Kind::Directory, Some(7), Some(3)),
            item(Kind::Text, None, None),
        ];
        take(&mut sender, &mut receiver, items);
        let arrival = receiver.begin(header(0, &[], None)).unwrap();
        assert_eq!((arrival.size, arrival.path.len()), (Some(5), 0));
        receiver.stored(arrival.id);
        assert!(receiver.begin(header(0, &[], None)).is_err(), "it has come already");
        for size in [7, 0] {
            let arrival = receiver.begin(header(1, &["a"], Some(size))).unwrap();
            assert!(receiver.hear(Message::Finish { offer: 0, item: 1 }).is_err(), "one is under way");
            receiver.stored(arrival.id);
        }
        let directory = Directory { path: vec!["d".to_owned()], mode: None, mtime: None };
        let directories = Message::Directories { offer: 0, item: 1, directories: vec![directory] };
        assert!(matches!(receiver.hear(directories), Ok(Some(Action::MakeDirectories(..)))));
        assert!(receiver.begin(header(1, &["b"], Some(0))).is_err(), "that would be the fourth");
        assert!(receiver.hear(Message::End).is_err(), "the directory is not finished");
        let id = ItemId { offer: 0, item: 1 };
        let finish = sender.sent(id);
        assert_eq!(receiver.hear(finish), Ok(Some(Action::Finish(id))));
        assert!(receiver.hear(Message::Finish { offer: 0, item: 1 }).is_err(), "twice");
        let finished = receiver.finished(id);
        assert_eq!(sender.hear(finished), Ok(Some(Action::Finished)));
        let (one, other) = (sender.end(), receiver.end());
        assert_eq!(
            (receiver.hear(one), sender.hear(other)),
            (Ok(Some(Action::Over)), Ok(Some(Action::Over)))
        );
        assert!(sender.is_over() && receiver.is_over());
    }

    #[test]
    fn sizes_do_not_overflow() {
        let (mut sender, mut receiver) = pair();
        take(&mut sender, &mut receiver, vec![item(Kind::Directory, Some(u64::MAX), Some(u64::MAX))]);
        assert!(receiver.begin(header(0, &["a"], Some(u64::MAX))).is_ok());
        assert!(receiver.begin(header(0, &["b"], Some(1))).is_err());
    }

    #[test]
    fn what_was_refused_does_not_come() {
        let (mut sender, mut receiver) = pair();
        let (offer, message) = sender.offer(vec![item(Kind::File, Some(1), None)]);
        receiver.hear(message).unwrap();
        receiver.decide(offer, vec![answer(false)]).unwrap();
        assert!(receiver.begin(header(0, &[], None)).is_err());
        assert_eq!(receiver.hear(Message::End), Ok(None));
    }

    fn messages() -> impl Strategy<Value = Message> {
        let number = || prop_oneof![0..3_u64, Just(u64::MAX)];
        let kinds =
            prop_oneof![Just(Kind::File), Just(Kind::Directory), Just(Kind::Text), Just(Kind::Stream)];
        let size = || prop_oneof![Just(None), number().prop_map(Some)];
        let items =
            vec((kinds, size(), size()).prop_map(|(kind, size, count)| item(kind, size, count)), 0..3);
        let directory = Directory { path: vec!["d".to_owned()], mode: None, mtime: None };
        prop_oneof![
            number().prop_map(|version| Message::Hello { version }),
            (number(), items).prop_map(|(offer, items)| Message::Offer { offer, items }),
            (number(), vec(any::<bool>().prop_map(answer), 0..3))
                .prop_map(|(offer, items)| Message::Answer { offer, items }),
            (number(), number(), vec(Just(directory), 0..3))
                .prop_map(|(offer, item, directories)| Message::Directories { offer, item, directories }),
            (number(), number()).prop_map(|(offer, item)| Message::Finish { offer, item }),
            (number(), number()).prop_map(|(offer, item)| Message::Finished { offer, item }),
            Just(Message::End),
            Just(Message::Unknown),
        ]
    }

    proptest! {
        /// Whatever comes, in whatever order: it is an action or a violation.
        #[test]
        fn nothing_that_is_said_is_a_surprise(said in vec((messages(), 0..3_u64, any::<bool>()), 0..30)) {
            let mut conversation = Conversation::default();
            let mut came = Vec::new();
            for (message, item, accept) in said {
                match conversation.hear(message) {
                    Ok(Some(Action::Decide { offer, items })) => {
                        prop_assert!(conversation.decide(offer, vec![answer(accept); items.len()]).is_ok());
                    }
                    Ok(Some(Action::Finish(id))) => drop(conversation.finished(id)),
                    _ => {}
                }
                for path in [&[][..], &["a"][..]] {
                    if let Ok(arrival) = conversation.begin(header(item, path, Some(1))) {
                        came.push(arrival.id);
                    }
                }
                if let Some(id) = came.pop_if(|_| accept) {
                    conversation.stored(id);
                }
            }
        }
    }
}
