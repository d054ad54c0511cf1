//! A full disk while runs are written.

use seen_store::{ErrorKind, SeenStore};

use crate::common::clock_and_config;
use crate::{asleep, id, small_sizes};

/// Needs a small file system of its own; `SEEN_SMALL_DISK` names its folder.
#[test]
fn a_full_disk_loses_no_mark_and_the_store_goes_on_when_there_is_room() {
    let Some(folder) = std::env::var_os("SEEN_SMALL_DISK") else { return };
    small_sizes();
    let folder = std::path::PathBuf::from(folder);
    let (_, config) = clock_and_config();
    for round in 0..6_usize {
        let (path, filler) = (folder.join("seen.db"), folder.join("filler"));
        for name in ["seen.db", "seen.db-wal", "seen.db-shm", "filler"] {
            let _ = std::fs::remove_file(folder.join(name));
        }
        std::fs::write(&filler, vec![1; 1024 * (380 + 40 * round)]).unwrap();
        let mut acknowledged = Vec::new();
        let mut store = SeenStore::open_with(&path, asleep(config.clone())).unwrap();
        let mut failed = 0;
        for n in 0..20_000 {
            match store.mark_seen(id(n)) {
                Ok(()) => acknowledged.push(n),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::StorageFull, "{e}");
                    failed += 1;
                    if failed == 5 {
                        break;
                    }
                }
            }
            if n % 700 == 699 {
                // An opening on a disk that is nearly full.
                let closed = store.close();
                store = SeenStore::open_with(&path, asleep(config.clone())).unwrap();
                if let Err(e) = closed {
                    assert_eq!(e.kind(), ErrorKind::StorageFull, "{e}");
                }
            }
        }
        assert!(failed > 0 && acknowledged.len() > 100, "{failed} {}", acknowledged.len());
        for n in &acknowledged {
            assert!(store.try_is_seen(id(*n)).unwrap(), "{n} is lost");
        }
        drop(store);
        let again = SeenStore::open_with(&path, asleep(config.clone()));
        match &again {
            Ok(store) => {
                for n in &acknowledged {
                    assert!(store.try_is_seen(id(*n)).unwrap(), "{n} is lost");
                }
            }
            Err(e) => eprintln!("round {round}: opening a full disk: {e}"),
        }
        std::fs::remove_file(&filler).unwrap();
        let store =
            again.unwrap_or_else(|_| SeenStore::open_with(&path, asleep(config.clone())).unwrap());
        for n in 50_000..50_200 {
            store.mark_seen(id(n)).unwrap();
        }
        for n in acknowledged.iter().copied().chain(50_000..50_200) {
            assert!(store.try_is_seen(id(n)).unwrap(), "{n} is lost");
        }
        let report = store.verify().unwrap();
        assert!(report.is_ok(), "{report:?}");
        store.close().unwrap();
        eprintln!("round {round}: {} marks", acknowledged.len());
    }
}
