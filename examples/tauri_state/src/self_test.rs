//! Prints what the page shows, for `check`.

use tauri::Wry;
use tauri::plugin::{Builder, TauriPlugin};

/// Returns a plugin that runs `self_test.js` in the page, prints its report and closes the window, which ends
/// the app.
///
/// The script hands the report over by going to the address `self-test:?report=TEXT`. So the app needs neither a
/// fourth command nor a permission for it.
pub(crate) fn plugin() -> TauriPlugin<Wry> {
    Builder::new("self-test")
        .js_init_script(include_str!("self_test.js"))
        .on_navigation(|webview, address| {
            if address.scheme() != "self-test" {
                return true;
            }
            for (_, report) in address.query_pairs() {
                println!("{report}");
            }
            webview.window().close().expect("a window can be closed");
            false
        })
        .build()
}
