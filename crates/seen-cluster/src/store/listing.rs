//! Looking entries up, and listing them a page at a time.
//!
//! Owns the position of a listing: which server, and how far `SCAN` has come there. What always holds: nothing is kept open
//! on a server between two pages. An entry that exists throughout is listed, and once, while no slot moves to another
//! server; while one moves, an entry in it may be missed, or listed twice. (`SCAN`: "a full iteration always retrieves all
//! the elements that were present from the start to the end".)

use std::collections::{HashSet, VecDeque};

use redis::{Value, cmd};
use seen_store::backend::{Policy, Record, error};
use seen_store::{Entry, ErrorKind, Filter, Item, Result};

use super::AsyncClusterStore;
use super::call::error_of;
use super::maintenance::field;
use crate::attempt::read;
use crate::nodes::{Address, Deadline};

/// How many keys a server looks at for one answer of `SCAN`.
const KEYS_AT_ONCE: u32 = 500;

/// A listing of entries, in no particular order: see [`AsyncClusterStore::entries`].
#[must_use = "a listing reads nothing until it is asked for an entry"]
pub struct AsyncClusterEntries {
    store: AsyncClusterStore,
    filter: Filter,
    scan: Scan,
    page: VecDeque<Entry>,
    /// After an error.
    is_over: bool,
}

/// A walk over the keys of all servers.
pub(super) struct Scan {
    pattern: Vec<u8>,
    /// `None` before it has begun.
    masters: Option<Vec<Address>>,
    cursor: Vec<u8>,
    /// Which run of the present server the cursor is of. `None`: it does not tell.
    run: Option<String>,
    /// What was listed of the present server: it may name a key twice.
    listed: HashSet<Vec<u8>>,
}

impl AsyncClusterStore {
    /// Returns what is known about the id: see [`SeenStore::get`](seen_store::SeenStore::get).
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub async fn get<'a>(&self, id: impl Into<Item<'a>>) -> Result<Option<Entry>> {
        let item = id.into();
        let (record, now_ms) = self.record(&item).await?;
        self.policy.entry(&record, &item, now_ms)
    }

    /// Lists the marks and claims of all scopes that the filter selects: see
    /// [`SeenStore::entries`](seen_store::SeenStore::entries).
    ///
    /// Goes through all keys of the namespace on all servers, 500 at a time, and reads each. While slots are moved to
    /// another server, entries in them may be missed.
    pub fn entries(&self, filter: Filter) -> AsyncClusterEntries {
        let scan = self.scan(filter.scope_name());
        let (store, page) = (self.clone(), VecDeque::new());
        AsyncClusterEntries { store, filter, scan, page, is_over: false }
    }

    /// Returns a handle for what marks no id: for how long this one keeps marks plays no part there.
    pub(super) fn marking_nothing(&self) -> Self {
        self.retention(None)
    }

    pub(super) fn scan(&self, scope: Option<&str>) -> Scan {
        Scan {
            pattern: self.shared.keys.pattern(scope),
            masters: None,
            cursor: b"0".to_vec(),
            run: None,
            listed: HashSet::new(),
        }
    }

    /// Returns the next keys of a scan with what they have; `None` at its end.
    pub(super) async fn next_page(&self, scan: &mut Scan) -> Result<Option<Vec<(Vec<u8>, Value)>>> {
        self.check_open()?;
        let masters = scan.masters.get_or_insert_with(|| self.shared.nodes.masters());
        let Some(master) = masters.last().cloned() else { return Ok(None) };
        let deadline = self.deadline();
        if scan.cursor == b"0" {
            scan.run = self.run_of(&master, deadline).await;
        }
        let mut command = cmd("SCAN");
        command.arg(&scan.cursor).arg("MATCH").arg(&scan.pattern).arg("COUNT").arg(KEYS_AT_ONCE);
        command.arg("TYPE").arg("string");
        let name = self.policy.store_name();
        let answer = self.shared.nodes.on_master(&master, command, deadline).await;
        let (cursor, keys) = scanned(answer.map_err(|e| error_of(name, e))?).ok_or_else(|| {
            error(ErrorKind::Io, format!("{name}: a server answers SCAN with something else"), None)
        })?;
        let is_new =
            |key: &Vec<u8>| self.shared.keys.parse(key).is_some() && !scan.listed.contains(key);
        let keys: HashSet<_> = keys.into_iter().filter(is_new).collect();
        // The cursor means nothing to a server that was started again meanwhile: it is walked through once more.
        let is_walked = cursor == b"0" && scan.run == self.run_of(&master, deadline).await;
        let commands = keys.iter().map(|key| (key.clone(), read(key))).collect();
        let values = self.shared.nodes.read_all(commands, deadline).await;
        let found = keys.into_iter().zip(values).map(|(key, value)| match value {
            Ok(value) => Ok((key, value)),
            Err(e) => Err(error_of(name, e)),
        });
        let found = found.collect::<Result<Vec<_>>>()?;
        // Only now: a page that its caller dropped meanwhile is asked for again.
        scan.cursor = cursor;
        if is_walked {
            scan.listed.clear();
            masters.pop();
        } else {
            scan.listed.extend(found.iter().map(|(key, _)| key.clone()));
        }
        Ok(Some(found))
    }

    /// Returns which run of the server answers.
    async fn run_of(&self, master: &Address, deadline: Deadline) -> Option<String> {
        let info = self.info(master, &["server"], deadline).await?;
        field(&info, "run_id").map(str::to_owned)
    }

    /// Calls `each` with all that is known of each id of a scope, or of all, with the policy of its scope.
    pub(super) async fn walk(
        &self,
        scope: Option<&str>,
        mut each: impl FnMut(&Policy, &Item<'_>, &Record, i64) -> Result<()>,
    ) -> Result<()> {
        let mut scan = self.scan(scope);
        while let Some(page) = self.next_page(&mut scan).await? {
            for (key, value) in page {
                self.with_record(&key, &value, &mut each)?;
            }
        }
        Ok(())
    }

    /// Calls `each` with the record of a key, if it is one.
    fn with_record(
        &self,
        key: &[u8],
        value: &Value,
        each: &mut impl FnMut(&Policy, &Item<'_>, &Record, i64) -> Result<()>,
    ) -> Result<()> {
        let Some((scope, id)) = self.shared.keys.parse(key) else { return Ok(()) };
        if !matches!(value, Value::BulkString(_)) {
            return Ok(()); // It is gone since.
        }
        let record = match self.record_of(key, value) {
            Ok(record) => record,
            Err(e) => {
                // One record that cannot be read hides no other.
                let name = self.policy.store_name();
                log::warn!(store = name, error:% = e; "left out of a listing: {e}");
                return Ok(());
            }
        };
        let now_ms = self.shared.nodes.now_ms(key);
        each(&self.policy.retention(None).scope(&scope), &Item::from(id), &record, now_ms)
    }
}

impl AsyncClusterEntries {
    /// Returns the next entry; `None` at the end, and after an error.
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::try_is_seen`].
    pub async fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                return Some(Ok(entry));
            }
            if self.is_over {
                return None;
            }
            match self.read_page().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => {
                    self.is_over = true;
                    return Some(self.store.counted(Err(e)));
                }
            }
        }
    }

    async fn read_page(&mut self) -> Result<bool> {
        let Self { store, filter, scan, page, .. } = self;
        let Some(read) = store.next_page(scan).await? else { return Ok(false) };
        for (key, value) in read {
            store.with_record(&key, &value, &mut |policy, item, record, now_ms| {
                let entries = policy.entries(record, item, now_ms)?;
                page.extend(
                    entries.into_iter().filter(|entry| Policy::is_listed(filter, entry, now_ms)),
                );
                Ok(())
            })?;
        }
        Ok(true)
    }
}

fn scanned(answer: Value) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(cursor), Value::Array(keys)] = <[Value; 2]>::try_from(parts).ok()?
    else {
        return None;
    };
    let keys = keys.into_iter().map(|key| match key {
        Value::BulkString(key) => Some(key),
        _ => None,
    });
    Some((cursor, keys.collect::<Option<_>>()?))
}
