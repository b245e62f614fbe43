//! A store in an SQLite file, which survives a restart.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, types::Type};
use serde_json::Value;

use super::store::{
    Change, MailboxRecord, MailboxSide, Message, Mood, NameplateRecord, NameplateSide, Store, StoreError,
    Totals,
};

/// Tells our files from those of other programs: "DiMb".
const APPLICATION_ID: i32 = 0x4469_4d62;
/// Changes when the tables change.
const SCHEMA_VERSION: i32 = 1;
const SCHEMA: &str = "
CREATE TABLE nameplates (
    app TEXT NOT NULL, name TEXT NOT NULL, mailbox TEXT NOT NULL, crowded INTEGER NOT NULL,
    PRIMARY KEY (app, name)
) WITHOUT ROWID;
CREATE INDEX nameplates_by_length ON nameplates (app, length(name), name);
CREATE TABLE nameplate_sides (
    app TEXT NOT NULL, name TEXT NOT NULL, side TEXT NOT NULL, claimed INTEGER NOT NULL, added REAL NOT NULL,
    PRIMARY KEY (app, name, side)
) WITHOUT ROWID;
CREATE TABLE mailboxes (
    app TEXT NOT NULL, id TEXT NOT NULL, nameplate TEXT, updated REAL NOT NULL, crowded INTEGER NOT NULL,
    messages INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (app, id)
) WITHOUT ROWID;
CREATE INDEX mailboxes_by_age ON mailboxes (updated);
CREATE TABLE mailbox_sides (
    app TEXT NOT NULL, id TEXT NOT NULL, side TEXT NOT NULL, opened INTEGER NOT NULL, added REAL NOT NULL,
    mood TEXT,
    PRIMARY KEY (app, id, side)
) WITHOUT ROWID;
-- The serial number is the order of replay: clocks go backwards.
-- phase, body and msg_id are JSON, since a client may send any scalar.
CREATE TABLE messages (
    serial INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT NOT NULL, id TEXT NOT NULL, side TEXT NOT NULL,
    phase TEXT NOT NULL, body TEXT NOT NULL, msg_id TEXT NOT NULL, server_rx REAL NOT NULL
);
CREATE INDEX messages_by_mailbox ON messages (app, id, serial);
";

/// Keeps everything in an SQLite file (or, for a test, in SQLite's memory).
#[derive(Debug)]
pub struct SqliteStore {
    db: Connection,
}

impl SqliteStore {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// When the file cannot be opened, or holds something else than a mailbox store of this version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::prepare(Connection::open(path).map_err(StoreError::new)?)
    }

    fn prepare(mut db: Connection) -> Result<Self, StoreError> {
        db.busy_timeout(Duration::from_secs(5)).map_err(StoreError::new)?;
        let found: i32 =
            db.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(StoreError::new)?;
        let version: i32 =
            db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(StoreError::new)?;
        let tables: i64 = db
            .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
            .map_err(StoreError::new)?;
        match (found, version, tables) {
            (0, 0, 0) => Self::create(&mut db).map_err(StoreError::new)?,
            (APPLICATION_ID, SCHEMA_VERSION, _) => {}
            (APPLICATION_ID, other, _) => {
                return Err(StoreError::new(format!(
                    "the file has version {other} but this program knows version {SCHEMA_VERSION}; use the \
                     program that wrote it, or another file"
                )));
            }
            _ => {
                return Err(StoreError::new(
                    "the file is an SQLite database of another program; choose another file",
                ));
            }
        }
        // In WAL mode a commit survives the end of the process; only a power cut may lose the last ones, and
        // then whole. That is what lets each request be one transaction.
        db.pragma_update(None, "journal_mode", "WAL").map_err(StoreError::new)?;
        db.pragma_update(None, "synchronous", "NORMAL").map_err(StoreError::new)?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(Self { db })
    }

    fn create(db: &mut Connection) -> rusqlite::Result<()> {
        let transaction = db.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.commit()
    }

    fn names(&self, sql: &str, app: &str, number: i64) -> Result<Vec<String>, StoreError> {
        let run = || -> rusqlite::Result<Vec<String>> {
            self.db.prepare_cached(sql)?.query_map(params![app, number], |row| row.get(0))?.collect()
        };
        run().map_err(StoreError::new)
    }

    fn read_nameplate(&self, app: &str, name: &str) -> rusqlite::Result<Option<NameplateRecord>> {
        let mut query =
            self.db.prepare_cached("SELECT mailbox, crowded FROM nameplates WHERE app = ? AND name = ?")?;
        let found = query.query_row(params![app, name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((mailbox, crowded)) = found else { return Ok(None) };
        let sides = self
            .db
            .prepare_cached(
                "SELECT side, claimed, added FROM nameplate_sides WHERE app = ? AND name = ? ORDER BY added",
            )?
            .query_map(params![app, name], |row| {
                Ok(NameplateSide { side: row.get(0)?, claimed: row.get(1)?, added: row.get(2)? })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Some(NameplateRecord { mailbox, sides, crowded }))
    }

    fn read_mailbox(&self, app: &str, id: &str) -> rusqlite::Result<Option<MailboxRecord>> {
        let mut query = self.db.prepare_cached(
            "SELECT nameplate, updated, crowded, messages, bytes FROM mailboxes WHERE app = ? AND id = ?",
        )?;
        let found = query.query_row(params![app, id], |row| {
            Ok(MailboxRecord {
                nameplate: row.get(0)?,
                updated: row.get(1)?,
                sides: Vec::new(),
                crowded: row.get(2)?,
                messages: size(row, 3)?,
                bytes: size(row, 4)?,
            })
        });
        let Some(mut record) = found.optional()? else { return Ok(None) };
        let sql =
            "SELECT side, opened, added, mood FROM mailbox_sides WHERE app = ? AND id = ? ORDER BY added";
        record.sides = self
            .db
            .prepare_cached(sql)?
            .query_map(params![app, id], |row| {
                let mood: Option<String> = row.get(3)?;
                let mood = mood.as_deref().map(Mood::from_word);
                Ok(MailboxSide { side: row.get(0)?, opened: row.get(1)?, added: row.get(2)?, mood })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Some(record))
    }

    fn read_messages(&self, app: &str, id: &str) -> rusqlite::Result<Vec<Message>> {
        let sql = "SELECT side, phase, body, msg_id, server_rx FROM messages \
                   WHERE app = ? AND id = ? ORDER BY serial";
        let read = |row: &Row<'_>| {
            Ok(Message {
                side: row.get(0)?,
                phase: json(row, 1)?,
                body: json(row, 2)?,
                id: json(row, 3)?,
                server_rx: row.get(4)?,
            })
        };
        self.db.prepare_cached(sql)?.query_map(params![app, id], read)?.collect()
    }

    fn read_totals(&self) -> rusqlite::Result<Totals> {
        let nameplates = self
            .db
            .prepare("SELECT app, count(*) FROM nameplates GROUP BY app")?
            .query_map([], |row| Ok((row.get(0)?, size(row, 1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        self.db.query_row("SELECT count(*), coalesce(sum(bytes), 0) FROM mailboxes", [], |row| {
            Ok(Totals { nameplates, mailboxes: size(row, 0)?, bytes: size(row, 1)? })
        })
    }
}

impl Store for SqliteStore {
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let run = || -> rusqlite::Result<()> {
            // Dropping the transaction without `commit` rolls it back.
            let transaction = self.db.transaction()?;
            for change in changes {
                write(&transaction, &change)?;
            }
            transaction.commit()
        };
        run().map_err(StoreError::new)
    }

    fn nameplate(&self, app: &str, name: &str) -> Result<Option<NameplateRecord>, StoreError> {
        self.read_nameplate(app, name).map_err(StoreError::new)
    }

    fn nameplates(&self, app: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        self.names(
            "SELECT name FROM nameplates WHERE app = ? ORDER BY length(name), name LIMIT ?",
            app,
            integer(limit),
        )
    }

    fn nameplates_of_length(&self, app: &str, digits: usize) -> Result<Vec<String>, StoreError> {
        self.names("SELECT name FROM nameplates WHERE app = ? AND length(name) = ?", app, integer(digits))
    }

    fn mailbox(&self, app: &str, id: &str) -> Result<Option<MailboxRecord>, StoreError> {
        self.read_mailbox(app, id).map_err(StoreError::new)
    }

    fn messages(&self, app: &str, id: &str) -> Result<Vec<Message>, StoreError> {
        self.read_messages(app, id).map_err(StoreError::new)
    }

    fn idle_mailboxes(&self, before: f64) -> Result<Vec<(String, String)>, StoreError> {
        let run = || -> rusqlite::Result<Vec<(String, String)>> {
            let mut query = self.db.prepare_cached("SELECT app, id FROM mailboxes WHERE updated <= ?")?;
            query.query_map([before], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        run().map_err(StoreError::new)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.read_totals().map_err(StoreError::new)
    }
}

fn json(row: &Row<'_>, column: usize) -> rusqlite::Result<Value> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// SQLite's integers are 64 bits with a sign.
fn integer(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn size(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    let number: i64 = row.get(column)?;
    usize::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn write(db: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::PutNameplate { app, name, record } => write_nameplate(db, app, name, record),
        Change::DeleteNameplate { app, name } => {
            db.prepare_cached("DELETE FROM nameplate_sides WHERE app = ? AND name = ?")?
                .execute([app, name])?;
            db.prepare_cached("DELETE FROM nameplates WHERE app = ? AND name = ?")?.execute([app, name])?;
            Ok(())
        }
        Change::PutMailbox { app, id, record } => write_mailbox(db, app, id, record),
        Change::DeleteMailbox { app, id } => {
            db.prepare_cached("DELETE FROM messages WHERE app = ? AND id = ?")?.execute([app, id])?;
            db.prepare_cached("DELETE FROM mailbox_sides WHERE app = ? AND id = ?")?.execute([app, id])?;
            db.prepare_cached("DELETE FROM mailboxes WHERE app = ? AND id = ?")?.execute([app, id])?;
            Ok(())
        }
        Change::AddMessage { app, id, message } => {
            let sql = "INSERT INTO messages (app, id, side, phase, body, msg_id, server_rx) \
                       VALUES (?, ?, ?, ?, ?, ?, ?)";
            let (phase, body) = (message.phase.to_string(), message.body.to_string());
            let msg_id = message.id.to_string();
            let values = params![app, id, message.side, phase, body, msg_id, message.server_rx];
            db.prepare_cached(sql)?.execute(values)?;
            Ok(())
        }
        Change::Touch { app, id, updated } => {
            let sql = "UPDATE mailboxes SET updated = ? WHERE app = ? AND id = ?";
            db.prepare_cached(sql)?.execute(params![updated, app, id])?;
            Ok(())
        }
    }
}

fn write_nameplate(
    db: &Transaction<'_>,
    app: &str,
    name: &str,
    record: &NameplateRecord,
) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO nameplates (app, name, mailbox, crowded) VALUES (?, ?, ?, ?)")?
        .execute(params![app, name, record.mailbox, record.crowded])?;
    // Sides are never taken away from a record, so replacing each is enough.
    let mut side = db.prepare_cached(
        "INSERT OR REPLACE INTO nameplate_sides (app, name, side, claimed, added) VALUES (?, ?, ?, ?, ?)",
    )?;
    for row in &record.sides {
        side.execute(params![app, name, row.side, row.claimed, row.added])?;
    }
    Ok(())
}

fn write_mailbox(db: &Transaction<'_>, app: &str, id: &str, record: &MailboxRecord) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO mailboxes (app, id, nameplate, updated, crowded, messages, bytes) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        app,
        id,
        record.nameplate,
        record.updated,
        record.crowded,
        integer(record.messages),
        integer(record.bytes)
    ])?;
    let mut side = db.prepare_cached(
        "INSERT OR REPLACE INTO mailbox_sides (app, id, side, opened, added, mood) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for row in &record.sides {
        side.execute(params![app, id, row.side, row.opened, row.added, row.mood.map(Mood::as_str)])?;
    }
    Ok(())
}
