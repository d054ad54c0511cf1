//! The queue under a model checker: shuttle tries thousands of interleavings of its steps, the locks and
//! atomics being shuttle's own. A deadlock or a lost wake-up ends a run with every thread asleep, which
//! shuttle reports.

#[path = "queue.rs"]
#[expect(clippy::duplicate_mod, reason = "the real code, on other locks")]
#[allow(dead_code, reason = "the engine uses more of it than the checks")]
mod queue;

#[allow(dead_code, reason = "as above")]
mod locks {
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicUsize};
    pub(super) use shuttle::sync::{Arc, MutexGuard};
    pub(super) use shuttle::thread::yield_now;

    use std::sync::{PoisonError, TryLockError};

    /// Shuttle's mutex in the shape of the one in `locks`, which knows no poison.
    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }
    }

    pub(super) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(super) fn new() -> Self {
            Self(shuttle::sync::Condvar::new())
        }

        pub(super) fn wait_while<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            condition: impl FnMut(&mut T) -> bool,
        ) -> MutexGuard<'a, T> {
            self.0.wait_while(guard, condition).unwrap_or_else(PoisonError::into_inner)
        }

        pub(super) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    pub(super) fn unlock_fair<T>(guard: MutexGuard<'_, T>) {
        drop(guard);
    }
}

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use queue::{Combiner, Jobs, Led, Outcome};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

const RUNS: usize = 5_000;

/// What was committed, in order. Stands for the file.
#[derive(Default)]
struct Committed(Vec<u32>);

type Group = Combiner<Committed, u32, Result<usize, &'static str>>;

fn group() -> Group {
    Group::new(Committed::default(), thread_rng().gen_range(0..3))
}

/// Commits the waiting jobs, at most two at a time, and answers each with its place in the file.
fn commit(file: &mut Committed, jobs: &Jobs<'_, u32, Result<usize, &'static str>>) -> Led {
    let mut taken = jobs.take(2);
    let start = file.0.len();
    file.0.extend(taken.iter_mut().map(|taken| *taken.job()));
    for (place, taken) in taken.into_iter().enumerate() {
        taken.answer(Ok(start + place));
    }
    Led::Done
}

fn check(body: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(body, RUNS);
}

#[test]
fn every_job_is_committed_once_and_answered_after_it_was() {
    check(|| {
        let group = std::sync::Arc::new(group());
        let threads: Vec<_> = (0..4)
            .map(|job| {
                let group = std::sync::Arc::clone(&group);
                thread::spawn(move || {
                    let outcome = group.submit(job, commit, || true);
                    let Outcome::Answered(Ok(place)) = outcome else { panic!("{outcome:?}") };
                    assert_eq!(group.lock().0[place], job, "answered before its commit");
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut jobs = group.lock().0.clone();
        jobs.sort_unstable();
        assert_eq!(jobs, [0, 1, 2, 3]);
    });
}

#[test]
fn holders_of_the_mutex_that_are_no_leaders_leave_no_job_behind() {
    check(|| {
        let group = std::sync::Arc::new(group());
        let threads: Vec<_> = (0..4)
            .map(|job| {
                let group = std::sync::Arc::clone(&group);
                thread::spawn(move || match job {
                    0 => drop(group.lock()),
                    1 => group.lock().end_fair(),
                    2 => drop(group.try_lock_idle()),
                    _ => {
                        let outcome = group.submit(job, commit, || true);
                        assert_eq!(outcome, Outcome::Answered(Ok(0)));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_holder_of_the_mutex_may_do_the_waiting_jobs_before_it_lets_go() {
    check(|| {
        let group = std::sync::Arc::new(group());
        let threads: Vec<_> = (0..4)
            .map(|job| {
                let group = std::sync::Arc::clone(&group);
                thread::spawn(move || {
                    if job == 0 {
                        let mut held = group.lock();
                        let (file, jobs) = held.parts();
                        if !jobs.is_empty() {
                            commit(file, &jobs);
                        }
                        return;
                    }
                    let outcome = group.submit(job, commit, || true);
                    let Outcome::Answered(Ok(place)) = outcome else { panic!("{outcome:?}") };
                    assert_eq!(group.lock().0[place], job);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(group.lock().0.len(), 3);
    });
}

#[test]
fn jobs_are_served_first_come_first_served() {
    check(|| {
        let group = std::sync::Arc::new(group());
        let held = group.lock();
        let threads: Vec<_> = (0..3)
            .map(|job| {
                let submitter = std::sync::Arc::clone(&group);
                let thread = thread::spawn(move || submitter.submit(job, commit, || true));
                while group.waiting() <= job as usize {
                    thread::yield_now();
                }
                thread
            })
            .collect();
        drop(held);
        for (place, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), Outcome::Answered(Ok(place)));
        }
    });
}

#[test]
fn a_leader_that_is_kept_out_pauses_and_the_others_are_served_all_the_same() {
    check(|| {
        let group = std::sync::Arc::new(group());
        let busy = std::sync::Arc::new(AtomicU32::new(3));
        let threads: Vec<_> = (0..3)
            .map(|job| {
                let (group, busy) = (std::sync::Arc::clone(&group), std::sync::Arc::clone(&busy));
                thread::spawn(move || {
                    let mut patience = job + 1;
                    let outcome = group.submit(
                        job,
                        |file, jobs| {
                            if busy.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok() {
                                return Led::Busy;
                            }
                            commit(file, jobs)
                        },
                        || {
                            patience -= 1;
                            thread::yield_now();
                            patience > 0
                        },
                    );
                    let file = group.lock().0.clone();
                    match outcome {
                        Outcome::Answered(Ok(place)) => assert_eq!(file[place], job),
                        Outcome::Withdrawn => assert!(!file.contains(&job)),
                        other => panic!("{other:?}"),
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(group.waiting(), 0);
    });
}

#[test]
fn a_failed_commit_fails_the_whole_group_and_nobody_else() {
    check(|| {
        let group = std::sync::Arc::new(group());
        let failures = std::sync::Arc::new(AtomicU32::new(1));
        let threads: Vec<_> = (0..3)
            .map(|job| {
                let (group, failures) =
                    (std::sync::Arc::clone(&group), std::sync::Arc::clone(&failures));
                thread::spawn(move || {
                    let outcome = group.submit(
                        job,
                        |file, jobs| {
                            if failures
                                .fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1))
                                .is_err()
                            {
                                return commit(file, jobs);
                            }
                            for taken in jobs.take(2) {
                                taken.answer(Err("disk full"));
                            }
                            Led::Done
                        },
                        || true,
                    );
                    let committed = group.lock().0.contains(&job);
                    assert_eq!(committed, matches!(outcome, Outcome::Answered(Ok(_))));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_leader_that_panics_before_it_takes_a_job_leaves_nobody_waiting() {
    check(|| {
        let group = std::sync::Arc::new(group());
        let panics = std::sync::Arc::new(AtomicU32::new(1));
        let threads: Vec<_> = (0..3)
            .map(|job| {
                let (group, panics) =
                    (std::sync::Arc::clone(&group), std::sync::Arc::clone(&panics));
                thread::spawn(move || {
                    let lead = |file: &mut Committed, jobs: &Jobs<'_, u32, _>| {
                        if panics.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err() {
                            return commit(file, jobs);
                        }
                        std::panic::resume_unwind(Box::new("the leader panics"));
                    };
                    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        group.submit(job, lead, || true)
                    }));
                    // Without the mutex: letting go of it would put a forgotten waiter in charge. The job
                    // of the one that panicked may have been taken meanwhile.
                    assert!(matches!(unwound, Err(_) | Ok(Outcome::Answered(Ok(_)))));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(group.waiting(), 0);
    });
}

#[test]
fn a_leader_that_panics_abandons_the_jobs_in_its_hands_and_hands_the_others_over() {
    check(|| {
        let group = std::sync::Arc::new(group());
        let panics = std::sync::Arc::new(AtomicU32::new(1));
        let threads: Vec<_> = (0..3)
            .map(|job| {
                let (group, panics) =
                    (std::sync::Arc::clone(&group), std::sync::Arc::clone(&panics));
                thread::spawn(move || {
                    let lead = |file: &mut Committed, jobs: &Jobs<'_, u32, _>| {
                        if panics.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err() {
                            return commit(file, jobs);
                        }
                        let _in_hand = jobs.take(2);
                        // Unwinds without the hook, whose backtrace would end the model checker's run.
                        std::panic::resume_unwind(Box::new("the leader panics"));
                    };
                    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        group.submit(job, lead, || true)
                    }));
                    let committed = group.lock().0.contains(&job);
                    match unwound {
                        Ok(Outcome::Answered(Ok(_))) => assert!(committed),
                        Ok(Outcome::Abandoned) | Err(_) => assert!(!committed),
                        Ok(other) => panic!("{other:?}"),
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(group.waiting(), 0);
    });
}

#[test]
fn jobs_that_are_given_back_are_done_later_or_withdrawn_and_in_their_order() {
    check(|| {
        let group = std::sync::Arc::new(group());
        let busy = std::sync::Arc::new(AtomicU32::new(2));
        let threads: Vec<_> = (0..3)
            .map(|job| {
                let (group, busy) = (std::sync::Arc::clone(&group), std::sync::Arc::clone(&busy));
                thread::spawn(move || {
                    let mut patience = job + 1;
                    let outcome = group.submit(
                        job,
                        |file, jobs| {
                            if busy.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err() {
                                return commit(file, jobs);
                            }
                            // One is done, and the others are given back.
                            let mut taken = jobs.take(3).into_iter();
                            if let Some(mut first) = taken.next() {
                                file.0.push(*first.job());
                                first.answer(Ok(file.0.len() - 1));
                            }
                            jobs.give_back(taken);
                            Led::Busy
                        },
                        || {
                            patience -= 1;
                            thread::yield_now();
                            patience > 0
                        },
                    );
                    let file = group.lock().0.clone();
                    match outcome {
                        Outcome::Answered(Ok(place)) => assert_eq!(file[place], job),
                        Outcome::Withdrawn => assert!(!file.contains(&job)),
                        other => panic!("{other:?}"),
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(group.waiting(), 0);
    });
}
