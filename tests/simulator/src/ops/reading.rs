//! What is read.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use seen_store::{Config, Entry, Filter, IndexMode, Reader, Result, SeenStore, State};

use super::{Call, Draw, Effect, IDS, SCOPES, Says, id_of};
use crate::model::{Act, Name, Told};
use crate::setup::Kept;
use crate::state::{Tag, View};
use crate::through::Through;
use crate::world::COUNTS_DIFFER;

pub fn try_is_seen(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    let tag = draw.tag(name);
    draw.on_one("try_is_seen", Through::PLAIN, (name, tag), Act::IsSeen { tag }, |store, id| {
        store.try_is_seen(id).map(Told::IsSeen)
    })
}

/// It answers "no" where it cannot tell.
pub fn is_seen(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    let tag = draw.tag(name);
    draw.on_one("is_seen", Through::PLAIN, (name, tag), Act::IsSeen { tag }, |store, id| {
        Ok(if store.is_seen(id) { Told::IsSeen(true) } else { Told::Nothing })
    })
}

pub fn get(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    get_of(draw, name)
}

/// For the end of a run, too.
pub fn get_of(draw: &Draw<'_>, name: Name) -> Call {
    draw.on_one("get", Through::PLAIN, (name, None), Act::Get, |store, id| {
        Ok(Told::View(store.get(id)?.as_ref().map(View::of)))
    })
}

/// While others work an id may be listed at any moment of the listing, twice, or not at all.
pub fn entries(draw: &mut Draw<'_>) -> Call {
    let names = (0..SCOPES.len()).flat_map(|scope| (0..IDS).map(move |id| (scope, id))).collect();
    let call = list(draw, names, among);
    Call { judged_alone: true, ..call }
}

fn among(listed: Vec<View>) -> Told {
    listed.into_iter().next().map_or(Told::Nothing, Told::Among)
}

/// A listing while nothing else is under way, which tells of each of `names`.
pub fn entries_of(draw: &Draw<'_>, names: Vec<Name>) -> Call {
    list(draw, names, Told::Listed)
}

fn list(draw: &Draw<'_>, names: Vec<Name>, tell: fn(Vec<View>) -> Told) -> Call {
    let effect = names.iter().map(|name| (*name, vec![Act::List])).collect();
    let run = move |store: &SeenStore, _: &Config| {
        let entries: Vec<_> = store.entries(Filter::default()).collect::<Result<_>>()?;
        let newest = store.entries(Filter::default()).newest(entries.len() / 2)?;
        let mut says = listed(&names, &entries, tell);
        says.problems.extend(are_newest(&newest, &entries));
        Ok(says)
    };
    draw.call("entries", Through::PLAIN, Effect::On(effect), Box::new(run))
}

/// Whether these are the entries of a listing that were last seen.
fn are_newest(newest: &[Entry], all: &[Entry]) -> Option<String> {
    let mut times: Vec<_> = all.iter().map(|entry| entry.last_seen).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.truncate(newest.len());
    let found: Vec<_> = newest.iter().map(|entry| entry.last_seen).collect();
    let is_right = found == times && newest.len() == all.len() / 2;
    (!is_right).then(|| format!("the newest of {all:#?} are said to be {newest:#?}"))
}

/// What a listing says of these ids.
fn listed(names: &[Name], entries: &[Entry], tell: fn(Vec<View>) -> Told) -> Says {
    let (mut views, mut problems) = (HashMap::<_, Vec<View>>::new(), Vec::new());
    for entry in entries {
        let key = (entry.scope.clone(), entry.id.clone());
        let listed = views.entry(key.clone()).or_default();
        // A claim of another version has an entry of its own.
        let is_again = |view: &View| view.label.is_claim() == entry.state.is_claim();
        if listed.iter().any(is_again) {
            problems.push(format!("{key:?} is listed twice"));
            listed.retain(|view| !is_again(view));
        }
        listed.push(View::of(entry));
    }
    let told = names.iter().map(|name| {
        let key = (SCOPES[name.0].to_owned(), id_of(*name).into_bytes());
        vec![tell(views.get(&key).cloned().unwrap_or_default())]
    });
    Says { told: told.collect(), problems, ..Says::default() }
}

/// Whether the counts of a store are those of these entries.
fn are_counts_of(entries: &[Entry], [seen, in_flight, failed]: [u64; 3]) -> bool {
    let count = |state| entries.iter().filter(|entry| entry.state == state).count() as u64;
    let claims = entries.iter().filter(|entry| entry.state.is_claim()).count() as u64;
    // A clock that was set back may have brought up again a mark beside a claim of the same version, which is
    // listed instead of it.
    let right = count(State::Seen);
    (right..=right + claims).contains(&seen)
        && in_flight == count(State::InFlight)
        && failed == count(State::Failed)
}

/// They are to tell of what is listed.
pub fn stats(draw: &mut Draw<'_>) -> Call {
    let is_awake = draw.setup.index == IndexMode::Awake;
    let is_shared = draw.setup.kept == Kept::SharedFile;
    let path = draw.path.clone();
    let call = draw.on_none("stats", move |store, _| {
        let entries: Vec<_> = store.entries(Filter::default()).collect::<Result<_>>()?;
        let stats = store.stats()?;
        // An index that is asleep also counts what has expired. What it counts is compared by a verify.
        let listed = entries.iter().filter(|entry| entry.state == State::Seen).count() as u64;
        let seen = if is_awake || stats.seen < listed { stats.seen } else { listed };
        let is_right = are_counts_of(&entries, [seen, stats.in_flight, stats.failed]);
        if !is_right {
            return Ok(vec![format!("{entries:?} are listed: {stats:?}")]);
        }
        let in_table = if is_shared { marks_in_table(&path) } else { None };
        let Some(in_table) = in_table else { return Ok(Vec::new()) };
        // A purge in the background may remove some meanwhile, and nothing adds any.
        let (before, after) = (stats.scopes, store.stats()?.scopes);
        let count = |of: &BTreeMap<String, u64>, scope: &str| of.get(scope).copied().unwrap_or(0);
        let mut scopes = before.keys().chain(in_table.keys()).chain(after.keys());
        let is_wrong = |scope: &&String| {
            let range = count(&after, scope)..=count(&before, scope);
            !range.contains(&count(&in_table, scope))
        };
        let problem = scopes.any(|scope| is_wrong(&scope)).then(|| {
            format!("{COUNTS_DIFFER}{before:?}, in the table {in_table:?}, then {after:?}")
        });
        Ok(problem.into_iter().collect())
    });
    Call { judged_alone: true, ..call }
}

/// Counts the marks of the table by scope, unless the file cannot be read now.
fn marks_in_table(path: &Path) -> Option<BTreeMap<String, u64>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).ok()?;
    let select = "SELECT scope, count(*) FROM seen WHERE expires_at IS NOT 0 GROUP BY scope";
    let mut statement = connection.prepare(select).ok()?;
    let counted =
        statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())));
    counted.ok()?.collect::<rusqlite::Result<_>>().ok()
}

pub fn verify(draw: &mut Draw<'_>) -> Call {
    draw.on_none("verify", |store, _| store.verify().map(|report| report.problems))
}

/// A Reader beside the stores, of what only one store reads: the store itself.
pub fn read(draw: &mut Draw<'_>) -> Call {
    if draw.setup.kept != Kept::SharedFile {
        return verify(draw);
    }
    let (name, path, whole) = (draw.name(), draw.path.clone(), draw.rng.bool());
    let tag = draw.tag(name);
    let run = move |_: &SeenStore, config: &Config| {
        let reader = Reader::open_with(&path, config.clone())?;
        let (scope, id) = (SCOPES[name.0], id_of(name));
        let told = if whole {
            // As in a listing, what has expired is there until it is purged.
            Told::Read(reader.scope(scope).get(id)?.as_ref().map(View::of))
        } else {
            Told::IsSeen(reader.scope(scope).try_is_seen(Tag::item(tag, id.as_bytes()))?)
        };
        let problems = reader.verify()?.problems;
        Ok(Says { told: vec![vec![told]], problems, ..Says::default() })
    };
    let act = if whole { Act::Get } else { Act::IsSeen { tag } };
    let call =
        draw.call("Reader", Through::PLAIN, Effect::On(vec![(name, vec![act])]), Box::new(run));
    Call { by_reader: true, ..call }
}

/// The listing of a Reader, with its stats.
pub fn read_all(draw: &mut Draw<'_>) -> Call {
    if draw.setup.kept != Kept::SharedFile {
        return verify(draw);
    }
    let names = (0..SCOPES.len()).flat_map(|scope| (0..IDS).map(move |id| (scope, id))).collect();
    read_all_of(draw, names, among)
}

pub fn read_all_of(draw: &Draw<'_>, names: Vec<Name>, tell: fn(Vec<View>) -> Told) -> Call {
    let effect = names.iter().map(|name| (*name, vec![Act::List])).collect();
    let path = draw.path.clone();
    let run = move |_: &SeenStore, config: &Config| {
        let reader = Reader::open_with(&path, config.clone())?;
        let entries: Vec<_> = reader.entries(Filter::default()).collect::<Result<_>>()?;
        let stats = reader.stats(Duration::from_secs(3_600), 4)?.total();
        let mut says = listed(&names, &entries, tell);
        if !are_counts_of(&entries, [stats.seen, stats.in_flight, stats.failed]) {
            says.problems.push(format!("{entries:?} are listed: {stats:?}"));
        }
        Ok(says)
    };
    let call = draw.call("Reader lists", Through::PLAIN, Effect::On(effect), Box::new(run));
    Call { by_reader: true, judged_alone: true, ..call }
}
