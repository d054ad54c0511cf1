//! Marks: made, looked up by the way, taken away, taken over from another store.

use std::collections::HashSet;

use seen_store::{Entry, ErrorKind, Token, Verdict};

use super::{Call, Draw, FIRST_IMPORTED, FRESH, IDS, SCOPES, time};
use crate::model::{Act, Told};
use crate::setup::choose;
use crate::state::{Answer, Span, View};
use crate::through::Through;

pub(super) fn told(verdict: Verdict) -> Told {
    Told::Answer(answer(verdict))
}

fn answer(verdict: Verdict) -> Answer {
    match verdict {
        Verdict::New => Answer::New,
        Verdict::Changed => Answer::Changed,
        Verdict::Duplicate => Answer::Duplicate,
        Verdict::InFlight => Answer::Flying,
        other => panic!("{other:?} is new to the simulator"),
    }
}

pub fn mark_seen(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    let tag = draw.tag(name);
    draw.on_one("mark_seen", through, (name, tag), Act::Mark { tag }, |store, id| {
        store.mark_seen(id).map(|()| Told::Answer(Answer::Done))
    })
}

pub fn mark_seen_at(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    let away = *choose(&mut draw.rng, &[0, -1, -30_000, -3_600_000, 1, 30_000, 3_600_000]);
    let (at, tag) = ((draw.now_ms + away).max(1), draw.tag(name));
    let act = Act::MarkAt { at, tag };
    draw.on_one("mark_seen_at", through, (name, tag), act, move |store, id| {
        store.mark_seen_at(id, time(at)).map(|()| Told::Answer(Answer::Done))
    })
}

pub fn check_and_mark(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    let tag = draw.tag(name);
    draw.on_one(
        "check_and_mark",
        through,
        (name, tag),
        Act::Check { tag, retry_of: None },
        |store, id| store.check_and_mark(id).map(told),
    )
}

/// Checks again after an outcome that is said to be unknown: by one of a few tokens, under which any caller may have marked
/// the id, or not.
pub fn check_again(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    let tag = draw.tag(name);
    let number = *choose(&mut draw.rng, &[0xC0DE_0000_u32, 0xC0DE_0001, 0xC0DE_0002]);
    let token: Token = format!("{number:032x}").parse().expect("32 digits");
    let act = Act::Check { tag, retry_of: Some(token) };
    draw.on_one("check_and_mark, again", through, (name, tag), act, move |store, id| {
        store.check_and_mark(id.retry_of(token)).map(told)
    })
}

pub fn observe(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    let tag = draw.tag(name);
    draw.on_one("observe", through, (name, tag), Act::Observe { tag }, |store, id| {
        match store.observe(id) {
            Ok(seen) => {
                let before = seen.before.as_ref().map(View::of);
                Ok(Told::Observed(answer(seen.verdict), before))
            }
            // Of what was known it says nothing.
            Err(e) if e.kind() == ErrorKind::Conflict => Ok(Told::Conflicted),
            Err(e) => Err(e),
        }
    })
}

pub fn check_and_mark_all(draw: &mut Draw<'_>) -> Call {
    let (names, through) = (draw.batch(IDS), draw.through());
    let names = draw.tagged(names);
    let acts = names.iter().map(|(_, tag)| Act::Check { tag: *tag, retry_of: None }).collect();
    draw.on_batch("check_and_mark_all", through, names, acts, |store, ids| {
        Ok(store.check_and_mark_all(ids)?.into_iter().map(told).collect())
    })
}

pub fn seed(draw: &mut Draw<'_>) -> Call {
    let (names, through) = (draw.batch(IDS), draw.through());
    let names = draw.tagged(names);
    let acts = names.iter().map(|(_, tag)| Act::Seed { tag: *tag }).collect();
    // Those that come up once are new. Of equal ones the first is, unless what it leaves expires at once.
    let least = names.iter().filter(|(name, _)| name.1 >= FRESH).count();
    let expires_at_once = through.ttl == Some(Span::Ms(0));
    let distinct = names.iter().map(|(name, _)| name).collect::<HashSet<_>>().len();
    let most = if expires_at_once { names.len() } else { distinct };
    draw.on_batch("seed", through, names, acts, move |store, ids| {
        let new = usize::try_from(store.seed(ids)?).expect("a count of ids");
        assert!((least..=most).contains(&new), "of {ids:?}, {new} are new");
        Ok(vec![Told::Nothing; ids.len()])
    })
}

pub fn forget(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    let call = draw.on_one("forget", Through::PLAIN, (name, None), Act::Forget, |store, id| {
        store.forget(id).map(|was_known| Told::Answer(Answer::Forgot(was_known)))
    });
    Call { removes: true, ..call }
}

pub fn forget_scope(draw: &mut Draw<'_>) -> Call {
    let scope = draw.scope();
    let call = draw.on_all("forget_scope", Some(scope), Act::ForgetAll, move |store| {
        store.scope(SCOPES[scope]).forget_scope().map(drop)
    });
    Call { removes: true, ..call }
}

pub fn restore(draw: &mut Draw<'_>) -> Call {
    let scope = draw.scope();
    let name = (scope, draw.rng.usize(FIRST_IMPORTED..IDS));
    let away = *choose(&mut draw.rng, &[0, -1_000, -3_600_000, 1_000]);
    let first = (draw.now_ms + away).max(1);
    let last = first + *choose(&mut draw.rng, &[0, 1, 60_000]);
    let expires = last + *choose(&mut draw.rng, &[1, 600_000, 7_200_000]);
    let duplicates = *choose(&mut draw.rng, &[0, 1, 1 << 40, u64::MAX]);
    let act = Act::Import { first, last, expires };
    draw.on_one("restore", Through::PLAIN, (name, None), act, move |store, id| {
        let mut entry = Entry::new(SCOPES[scope], id.id(), time(first));
        entry.last_seen = time(last);
        entry.expires_at = Some(time(expires));
        entry.duplicates = duplicates;
        let restored = store.restore([entry])?;
        assert!(restored.refused.is_empty(), "{restored:?}");
        Ok(Told::Nothing)
    })
}
