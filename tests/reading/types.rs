//! What callers can do with each public type, as the Rust API guidelines ask for.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::str::FromStr;

use seen_store::{
    Abandoned, Claim, Config, Counts, Entries, Entry, Error, ErrorKind, Failure, FileInfo,
    FileStats, Filter, IntegrityReport, Known, Lease, LegacyFile, Listing, ManualClock, Once,
    OnceError, Ownership, Pragmas, Previous, Reader, Refused, Resolution, RestoreSummary,
    RetryDelay, SeenStore, State, Stats, Synchronous, SystemClock, Token, Ttl, UpgradeReport,
    Verdict, Window,
};

fn is_plain<T: Debug + Send + Sync + Unpin + 'static>() {}
fn is_value<T: Debug + Clone + PartialEq + Eq + Send + Sync + Unpin + 'static>() {}
fn is_key<T: Debug + Copy + Eq + Hash + Send + Sync + Unpin + 'static>() {}
fn is_sent<T: Debug + Send + 'static>() {}
fn is_cloned<T: Clone>() {}
fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
fn has_default<T: Default>() {}
fn is_text<T: Display + FromStr<Err = Error>>() {}
fn survives_panics<T: UnwindSafe + RefUnwindSafe>() {}

#[test]
fn every_type_can_be_shown_and_sent_to_other_threads() {
    is_plain::<SeenStore>();
    is_plain::<Reader>();
    is_plain::<Listing<'static>>();
    is_plain::<Config>();
    is_plain::<ManualClock>();
    is_plain::<SystemClock>();
    is_plain::<Claim>();
    is_plain::<Known>();
    is_plain::<Lease>();
    is_plain::<OnceError<Error>>();
    is_plain::<RestoreSummary>();
    is_plain::<Refused>();
    is_plain::<Error>();
    is_plain::<Entries>();
    // An open connection of SQLite is sent, and not shared.
    is_sent::<LegacyFile>();
}

#[test]
fn what_is_a_value_is_cloned_and_compared() {
    is_value::<Entry>();
    is_value::<Filter>();
    is_value::<Counts>();
    is_value::<Stats>();
    is_value::<FileStats>();
    is_value::<FileInfo>();
    is_value::<Pragmas>();
    is_value::<IntegrityReport>();
    is_value::<UpgradeReport>();
    is_value::<Failure>();
    is_value::<Previous>();
    is_value::<Once<Vec<u8>>>();
    is_cloned::<SeenStore>();
    is_cloned::<Reader>();
    is_cloned::<Config>();
    is_cloned::<Error>();
    is_cloned::<Known>();
}

#[test]
fn what_is_small_is_copied_and_can_be_a_key() {
    is_key::<State>();
    is_key::<Verdict>();
    is_key::<Resolution>();
    is_key::<Ownership>();
    is_key::<ErrorKind>();
    is_key::<Token>();
    is_key::<Ttl>();
    is_key::<Window>();
    is_key::<RetryDelay>();
    is_key::<Abandoned>();
    is_key::<Synchronous>();
    is_key::<Counts>();
}

#[test]
fn what_has_a_natural_default_has_it() {
    has_default::<Config>();
    has_default::<Filter>();
    has_default::<Counts>();
    has_default::<Stats>();
    has_default::<FileStats>();
    has_default::<RestoreSummary>();
    has_default::<Window>();
    has_default::<Abandoned>();
    has_default::<Synchronous>();
    has_default::<ManualClock>();
    has_default::<SystemClock>();
}

#[test]
fn a_state_and_a_token_are_read_as_they_were_written() {
    is_text::<State>();
    is_text::<Token>();
    for state in State::ALL {
        assert_eq!(state.to_string().parse::<State>().unwrap(), *state);
    }
    let error = "gone".parse::<State>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("in-flight"), "{error}");
    assert_eq!(format!("[{:<9}] {}", State::Seen, Verdict::InFlight), "[seen     ] in-flight");
}

#[test]
fn an_error_is_one_for_every_program() {
    is_error::<Error>();
    is_error::<OnceError<Error>>();
    survives_panics::<SeenStore>();
}
