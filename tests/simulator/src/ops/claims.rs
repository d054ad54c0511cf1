//! Claims and what their holders do with them.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use rusqlite::ffi::SQLITE_IOERR;
use seen_store::{
    Claim, Config, ErrorKind, Failure, Item, Lease, Once, OnceError, Ownership, Previous,
    Resolution, Result, SeenStore, Token,
};

use super::{Call, Draw, Effect, FIRST_IMPORTED, FRESH, SCOPES, Says, id_of, ms_of};
use crate::model::{Act, Told, placeholder};
use crate::setup::choose;
use crate::state::{Answer, Before, Outcome, Tag, View};
use crate::vfs::{self, Fault};

fn granted(lease: &Lease) -> Told {
    told_of(lease.attempt(), lease.expires_at(), lease.previous(), lease.token())
}

pub(super) fn told_of(attempt: u32, until: SystemTime, previous: &Previous, token: Token) -> Told {
    let until = ms_of(until);
    let previous = match previous {
        Previous::None => Before::Nothing,
        Previous::Released => Before::Ended(Outcome::Released),
        Previous::Failed { .. } => Before::Ended(Outcome::Failed),
        Previous::Abandoned { since, .. } => Before::Abandoned { since: ms_of(*since) },
        Previous::Superseded(old) => Before::Superseded(Box::new(View::of(old).fixed())),
        other => panic!("{other:?} is new to the simulator"),
    };
    Told::Granted { attempt, until, previous, token }
}

fn claimed(claim: Claim) -> Told {
    answer_of(claim, |lease| {
        let told = granted(&lease);
        lease.into_token();
        told
    })
}

/// What a claim was told; `granted` takes the lease.
pub(super) fn answer_of<L, K>(claim: Claim<L, K>, granted: impl FnOnce(L) -> Told) -> Told {
    match claim {
        Claim::Granted(lease) => granted(lease),
        Claim::InFlight { until, .. } => Told::Answer(Answer::InFlight { until: ms_of(until) }),
        Claim::Seen(_) => Told::Answer(Answer::Seen),
        Claim::Unresolved { since, .. } => Told::Answer(Answer::Unresolved { since: ms_of(since) }),
        Claim::GivenUp { attempts } => Told::Answer(Answer::GivenUp { attempts }),
        _ => panic!("an answer to a claim is new to the simulator"),
    }
}

pub(super) fn held(outcome: Result<()>) -> Result<Told> {
    match outcome {
        Ok(()) => Ok(Told::Answer(Answer::Held)),
        Err(e) if e.kind() == ErrorKind::LeaseLost => Ok(Told::Answer(Answer::Lost)),
        Err(e) => Err(e),
    }
}

fn ownerships(all: Vec<Ownership>) -> Vec<Told> {
    let told = |ownership| match ownership {
        Ownership::Held => Told::Answer(Answer::Held),
        Ownership::Lost => Told::Answer(Answer::Lost),
        other => panic!("{other:?} is new to the simulator"),
    };
    all.into_iter().map(told).collect()
}

pub fn claim(draw: &mut Draw<'_>) -> Call {
    let (name, through, lease) = (draw.claimed(), draw.through(), draw.lease());
    // A claim that waits answers as of the moment at which it asked last.
    let waits = Duration::from_millis(*choose(&mut draw.rng, &[0, 0, 0, 40, 200]));
    let tag = draw.tag(name);
    let act = Act::Claim { tag, lease, hold: through.hold };
    draw.on_one("claim", through, (name, tag), act, move |store, id| {
        store.waiting(waits).claim(id, lease.duration()).map(claimed)
    })
}

pub fn claim_all(draw: &mut Draw<'_>) -> Call {
    let (names, through, lease) = (draw.batch(FIRST_IMPORTED), draw.through(), draw.lease());
    let mut names = names;
    // A claim that meets one of its own batch has a token that is not known yet: such are judged here.
    names.sort_unstable();
    names.dedup();
    let names = draw.tagged(names);
    let act = |tag| Act::Claim { tag, lease, hold: through.hold };
    let acts = names.iter().map(|(_, tag)| act(*tag)).collect();
    let again = draw.rng.usize(..3).min(names.len());
    draw.on_batch("claim_all", through, names, acts, move |store, ids| {
        let claims = store.claim_all(ids.iter().chain(&ids[..again]), lease.duration())?;
        let mut told: Vec<Told> = claims.into_iter().map(claimed).collect();
        for (second, first) in told.split_off(ids.len()).into_iter().zip(&told) {
            let right = match first {
                Told::Granted { until, .. } => Told::Answer(Answer::InFlight { until: *until }),
                refused => refused.clone(),
            };
            assert_eq!(second, right, "of equal ids in a batch, the first got {first:?}");
        }
        Ok(told)
    })
}

pub fn confirm(draw: &mut Draw<'_>) -> Call {
    let (name, through, receipt) = (draw.claimed(), draw.through(), draw.receipt());
    let token = draw.token(name);
    let act = Act::Confirm { token, receipt: receipt.clone() };
    draw.on_one("confirm", through, (name, None), act, move |store, id| {
        held(match receipt {
            Some(receipt) => store.confirm_with(id, &token, receipt),
            None => store.confirm(id, &token),
        })
    })
}

/// One verb on claims of several ids, each by a token.
fn on_claims(
    draw: &mut Draw<'_>,
    called: &'static str,
    act: impl Fn(Token) -> Act,
    run: impl FnOnce(&SeenStore, Vec<(Item<'_>, Token)>) -> Result<Vec<Ownership>> + Send + 'static,
) -> Call {
    let (mut names, through) = (draw.batch(FIRST_IMPORTED), draw.through());
    names.retain(|name| name.1 < FRESH);
    let tokens: Vec<_> = names.iter().map(|name| draw.token(*name)).collect();
    let acts = tokens.iter().map(|token| act(*token)).collect();
    let names = names.into_iter().map(|name| (name, None)).collect();
    draw.on_batch(called, through, names, acts, move |store, ids| {
        run(store, ids.iter().cloned().zip(tokens).collect()).map(ownerships)
    })
}

pub fn confirm_all(draw: &mut Draw<'_>) -> Call {
    let act = |token| Act::Confirm { token, receipt: None };
    on_claims(draw, "confirm_all", act, |store, claims| store.confirm_all(claims))
}

pub fn release_all(draw: &mut Draw<'_>) -> Call {
    let act = |token| Act::Release { token };
    on_claims(draw, "release_all", act, |store, claims| store.release_all(claims))
}

pub fn renew_all(draw: &mut Draw<'_>) -> Call {
    let lease = draw.lease();
    let act = |token| Act::Renew { token, lease };
    on_claims(draw, "renew_all", act, move |store, claims| {
        store.renew_all(claims, lease.duration())
    })
}

/// What a holder does with the lease that it was granted, before it is dropped.
type Use = fn(&mut Lease) -> Result<()>;

/// A claim whose lease is used and dropped at once.
pub fn lease(draw: &mut Draw<'_>) -> Call {
    let (mut name, through, lease) = (draw.claimed(), draw.through(), draw.lease());
    if draw.rng.bool() {
        // Surely granted, and as it was left at the end.
        name = draw.fresh(name.0, 1)[0];
    }
    let tag = draw.tag(name);
    let token = placeholder(draw.number);
    let uses: [(Act, Option<Use>); 4] = [
        (Act::Release { token }, None),
        (Act::Release { token }, Some(Lease::release)),
        (Act::Confirm { token, receipt: None }, Some(Lease::confirm)),
        (
            Act::Fail { token, reason: "503".to_owned(), is_final: false },
            Some(|lease| lease.fail("503")),
        ),
    ];
    let (act, then) = choose(&mut draw.rng, &uses).clone();
    let fails_after = (draw.rng.u32(..3) == 0).then(|| draw.rng.u32(..20));
    let renews = draw.rng.bool();
    let run = move |store: &SeenStore, _: &Config| {
        let mut handle = through.handle(store, SCOPES[name.0]);
        if renews {
            handle = handle.renewing(Duration::from_secs(3_600));
        }
        let id = id_of(name);
        let told = match handle.claim(Tag::item(tag, id.as_bytes()), lease.duration()) {
            Err(e) if e.kind() == ErrorKind::Conflict => {
                vec![Told::Answer(Answer::Conflict), Told::Nothing]
            }
            Err(e) => return Err(e),
            Ok(Claim::Granted(mut lease)) => {
                // What it does then is what fails: its dropping must not undo it.
                if let Some(calls) = fails_after {
                    vfs::plan_here(calls, Fault::Fails { code: SQLITE_IOERR, lasting: false });
                }
                let used = then.map_or(Ok(Told::Nothing), |then| held(then(&mut lease)))?;
                vec![granted(&lease), used]
            }
            Ok(refused) => vec![claimed(refused), Told::Nothing],
        };
        Ok(Says { told: vec![told], ..Says::default() })
    };
    draw.call(
        "lease",
        through,
        Effect::InSteps(name, vec![Act::Claim { tag, lease, hold: through.hold }, act]),
        Box::new(run),
    )
}

/// Work that is done once: a claim, and its confirm.
pub fn once(draw: &mut Draw<'_>) -> Call {
    let (mut name, through, lease) = (draw.claimed(), draw.through(), draw.lease());
    if draw.rng.bool() {
        name = draw.fresh(name.0, 1)[0];
    }
    let (token, tag) = (placeholder(draw.number), draw.tag(name));
    let run = move |store: &SeenStore, _: &Config| {
        let id = id_of(name);
        let store = through.handle(store, SCOPES[name.0]);
        let refused = |answer| vec![Told::Answer(answer), Told::Nothing];
        let work = || Ok::<_, Infallible>("4711");
        let told = match store.once(Tag::item(tag, id.as_bytes()), lease.duration(), work) {
            // It does not tell what it was granted.
            Ok(Once::Ran(_)) => vec![Told::Nothing, Told::Answer(Answer::Held)],
            Ok(Once::Replayed(_)) => refused(Answer::Seen),
            Ok(Once::InFlight { until, .. }) => refused(Answer::InFlight { until: ms_of(until) }),
            Ok(Once::Unresolved { since, .. }) => {
                refused(Answer::Unresolved { since: ms_of(since) })
            }
            Ok(Once::GivenUp { attempts }) => refused(Answer::GivenUp { attempts }),
            Ok(other) => panic!("{other:?} is new to the simulator"),
            Err(OnceError::Store(e)) if e.kind() == ErrorKind::Conflict => {
                refused(Answer::Conflict)
            }
            // Its claim was taken over before it was confirmed.
            Err(OnceError::Store(e)) if e.kind() == ErrorKind::LeaseLost => {
                vec![Told::Nothing, Told::Answer(Answer::Lost)]
            }
            Err(OnceError::Store(e)) => return Err(e),
            Err(OnceError::Work(never)) => match never {},
        };
        Ok(Says { told: vec![told], ..Says::default() })
    };
    let confirm = Act::Confirm { token, receipt: Some(b"4711".to_vec()) };
    let acts = vec![Act::Claim { tag, lease, hold: through.hold }, confirm];
    draw.call("once", through, Effect::InSteps(name, acts), Box::new(run))
}

pub fn release(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.claimed(), draw.through());
    let token = draw.token(name);
    draw.on_one("release", through, (name, None), Act::Release { token }, move |store, id| {
        held(store.release(id, &token))
    })
}

pub fn fail(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.claimed(), draw.through());
    let token = draw.token(name);
    let reason = (*choose(&mut draw.rng, &["", "503"])).to_owned();
    let is_final = draw.rng.u32(..4) == 0;
    let act = Act::Fail { token, reason: reason.clone(), is_final };
    draw.on_one("fail", through, (name, None), act, move |store, id| {
        let failure = Failure::new(reason);
        held(store.fail(id, &token, if is_final { failure.is_final() } else { failure }))
    })
}

pub fn resolve(draw: &mut Draw<'_>) -> Call {
    let (name, through, done) = (draw.claimed(), draw.through(), draw.rng.bool());
    let resolution = if done { Resolution::Done } else { Resolution::Retry };
    draw.on_one("resolve", through, (name, None), Act::Resolve { done }, move |store, id| {
        store.resolve(id, resolution).map(|resolved| Told::Answer(Answer::Resolved(resolved)))
    })
}

pub fn renew(draw: &mut Draw<'_>) -> Call {
    let (name, through, lease) = (draw.claimed(), draw.through(), draw.lease());
    let token = draw.token(name);
    draw.on_one("renew", through, (name, None), Act::Renew { token, lease }, move |store, id| {
        held(store.renew(id, &token, lease.duration()))
    })
}
