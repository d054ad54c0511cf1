//! An HTTP handler that takes payments, each idempotency key once.
//!
//! A client that got no answer sends its request again, with the same key. It must get the first answer, and its
//! customer must pay once. The statuses are those of the IETF draft "The Idempotency-Key HTTP Header Field":
//! 400 without a key, 409 while the first request is being handled, 422 for a key that was used with another body.
//!
//! `handle` makes a response of a request; any HTTP server can call it. The store is in memory here. A server opens
//! a file, so that a key outlives a restart.

use std::error::Error;
use std::time::Duration;

use seen_store::{ErrorKind, Item, Once, OnceError, SeenStore};

/// Clients send a request again for a day at most.
const KEYS_LAST: Duration = Duration::from_secs(24 * 3_600);
/// A server that dies gives its keys up after this time. Until then, the lease renews itself.
const LEASE: Duration = Duration::from_secs(30);

struct Request<'r> {
    key: Option<&'r str>,
    body: &'r str,
}

/// A status and a body.
type Response = (u16, String);

/// Handles a request; `pay` asks the bank for a payment and returns its number.
fn handle(
    keys: &SeenStore,
    request: &Request<'_>,
    pay: impl FnOnce(&str) -> Result<String, String>,
) -> Response {
    let Some(key) = request.key else {
        return (400, "the header Idempotency-Key is missing".to_owned());
    };
    // The body guards the key: it is compared, not stored.
    let item = Item::new(key).payload(request.body);
    match keys.once(item, LEASE, || pay(request.body)) {
        Ok(Once::Ran(number)) => (201, number),
        Ok(Once::Replayed(number)) => (201, text(&number.unwrap_or_default())),
        Ok(Once::InFlight { .. }) => (409, "this request is being handled".to_owned()),
        Ok(_) => (409, "this request waits for a decision".to_owned()),
        // The key can be used again: nothing was paid.
        Err(OnceError::Work(refusal)) => (502, refusal),
        Err(OnceError::Store(e)) if e.kind() == ErrorKind::Conflict => {
            (422, "this key was used with another body".to_owned())
        }
        Err(OnceError::Store(e)) => (503, e.to_string()),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let store = SeenStore::in_memory()?;
    let keys = store.scope("payments").ttl(KEYS_LAST);
    let show = |what: &str, (status, body): Response| println!("{what}: {status} {body}");
    let mut payments = 0;
    let mut pay = |body: &str| {
        payments += 1;
        Ok(format!("payment {payments}, {body}"))
    };

    let first = Request { key: Some("k-1"), body: "5 EUR" };
    show("no key", handle(&keys, &Request { key: None, body: "5 EUR" }, &mut pay));
    show("the bank is down", handle(&keys, &first, |_| Err("the bank does not answer".to_owned())));
    // While the bank works, the client loses its patience and sends the request again.
    let slow_bank = |body: &str| {
        show("meanwhile", handle(&keys, &first, |_| panic!("the first one is at it")));
        pay(body)
    };
    show("tried again", handle(&keys, &first, slow_bank));
    show("sent again", handle(&keys, &first, &mut pay));
    show("another body", handle(&keys, &Request { key: Some("k-1"), body: "9 EUR" }, &mut pay));
    show("another key", handle(&keys, &Request { key: Some("k-2"), body: "9 EUR" }, &mut pay));
    println!("{payments} payments");
    Ok(store.close()?)
}
