//! A desktop app whose page asks a store: was this id handled before?
//!
//! ```text
//! tauri-state [STORE]
//! ```
//!
//! Without an argument the store is the file that `SEEN_DB_PATH` names, else `seen.db` in the app's data folder.

#[cfg(feature = "self-test")]
mod self_test;

use std::error::Error;
use std::path::PathBuf;

use seen_store::{AsyncSeenStore, Entry, Filter, SeenStore, Verdict};
use tauri::{Manager, RunEvent, State};

// The three commands run on the threads of Tauri's own Tokio runtime, which the store never blocks. An error reaches the
// page as text: the promise of `invoke` is rejected with it.

#[tauri::command]
async fn check(store: State<'_, AsyncSeenStore>, id: String) -> Result<bool, String> {
    store.try_is_seen(&id).await.map_err(|e| e.to_string())
}

#[tauri::command]
async fn mark(store: State<'_, AsyncSeenStore>, id: String) -> Result<Verdict, String> {
    store.check_and_mark(&id).await.map_err(|e| e.to_string())
}

#[tauri::command]
async fn list(store: State<'_, AsyncSeenStore>) -> Result<Vec<Entry>, String> {
    store.entries(Filter::default()).newest(10).await.map_err(|e| e.to_string())
}

fn main() -> Result<(), Box<dyn Error>> {
    let builder = tauri::Builder::default();
    #[cfg(feature = "self-test")]
    let builder = builder.plugin(self_test::plugin());
    let app = builder
        .invoke_handler(tauri::generate_handler![check, mark, list])
        .build(tauri::generate_context!())?;

    // The windows open in `run`, so no page asks before the store is there.
    let path = match std::env::args_os().nth(1).or_else(|| std::env::var_os("SEEN_DB_PATH")) {
        Some(path) => PathBuf::from(path),
        None => app.path().app_data_dir()?.join("seen.db"),
    };
    app.manage(AsyncSeenStore::from(SeenStore::open(path)?));

    app.run(|app, event| {
        // `run` ends the process without dropping the state. Closing writes the last duplicate counts, and leaves no
        // `-wal` beside the file.
        if let RunEvent::Exit = event {
            let store = app.state::<AsyncSeenStore>();
            if let Err(e) = tauri::async_runtime::block_on(store.close()) {
                eprintln!("cannot close the store: {e}");
            }
        }
    });
    Ok(())
}
