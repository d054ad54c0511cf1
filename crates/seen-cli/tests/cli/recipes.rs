//! The recipes of the README, run as they stand there. Programs that a machine may lack, or that would reach
//! out of it, are stood in for by scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{Place, Told, wait_until};

/// The blocks of code that follow these words in the README.
fn blocks(words: &str) -> impl Iterator<Item = &'static str> {
    blocks_of(include_str!("recipes.md"), words)
}

fn blocks_of(text: &'static str, words: &str) -> impl Iterator<Item = &'static str> {
    let (_, rest) = text.split_once(words).unwrap_or_else(|| panic!("{words:?} is not there"));
    rest.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap().1)
}

impl Place {
    /// A script that is found before any other program of this name.
    fn stand_in(&self, name: &str, script: &str) {
        let bin = self.path("bin");
        fs::create_dir_all(&bin).unwrap();
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A shell that runs the script in the place's folder.
    fn shell(&self, script: &str) -> Command {
        self.stand_in(
            "seen",
            &format!("exec '{}' \"$@\"", assert_cmd::cargo::cargo_bin!("seen").display()),
        );
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.path("."));
        command.env("PATH", path).env("SEEN_DB_PATH", self.db()).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, script: &str) -> Told {
        Told::from(self.shell(script).output().unwrap())
    }
}

#[test]
fn the_cron_job_prints_each_error_once() {
    let place = Place::new();
    let log = place.file("app.log", "ERROR a\nINFO b\nERROR c\n");
    let table = blocks("A cron job that mails").next().unwrap();
    let line = table.lines().nth(1).unwrap();
    let job = line.splitn(6, ' ').nth(5).unwrap();
    assert!(job.contains("/var/log/app.log") && !job.contains('%'), "{job}");
    let job = job.replace("/var/log/app.log", log.to_str().unwrap());
    assert_eq!(place.run(&job).stdout, "ERROR a\nERROR c\n");
    place.file("app.log", "ERROR c\nERROR d\n");
    assert_eq!(place.run(&job).stdout, "ERROR d\n");
    assert_eq!(place.run(&job).stdout, "");
}

#[test]
fn the_daily_job_is_tried_until_it_succeeds_and_can_be_asked_for_again() {
    let place = Place::new();
    place.stand_in("send-report", "echo tried >>reports; [ -e ready ]");
    let table = blocks("**A daily job that may fail.**").next().unwrap();
    let job = table.lines().nth(1).unwrap().splitn(6, ' ').nth(5).unwrap();
    assert!(!job.contains('%'), "{job}");
    assert_eq!(place.run(job).status, Some(1));
    place.file("ready", "");
    for _ in 0..2 {
        let told = place.run(job);
        told.assert(0, &[]);
        assert_eq!(told.stdout, "");
    }
    assert_eq!(place.text("reports"), "tried\ntried\n");
    let readme = include_str!("recipes.md");
    let (_, again) = readme.split_once("To have it run once more today: `").unwrap();
    place.run(again.split_once('`').unwrap().0).assert(0, &[]);
    place.run(job).assert(0, &[]);
    assert_eq!(place.text("reports"), "tried\ntried\ntried\n");
}

/// Overwrites a page in the middle of the store.
fn damage(place: &Place) {
    let mut bytes = fs::read(place.db()).unwrap();
    // The newest marks lie late in the file, and in its middle the index.
    let late = bytes.len() / 8 * 7;
    bytes[late..late + 2_048].fill(0xff);
    fs::write(place.db(), bytes).unwrap();
}

#[test]
fn the_guide_leads_back_from_a_damaged_store_with_and_without_a_backup() {
    let guide = include_str!("guide.md");
    let mut recipes = blocks_of(guide, "# When a store is damaged\n");
    let (with, without) = (recipes.next().unwrap(), recipes.next().unwrap());
    for has_backup in [true, false] {
        let place = Place::new();
        let backup = place.path("backup");
        let ids = |ids: std::ops::Range<u32>| ids.map(|n| format!("an id {n}"));
        place.store().seed(ids(0..2_000)).unwrap();
        place.store().backup(&backup).unwrap();
        place.store().seed(ids(2_000..4_000)).unwrap();
        damage(&place);
        let recipe = if has_backup { with } else { without };
        let recipe = recipe.replace("/var/backups/seen.db", backup.to_str().unwrap());
        let recipe = recipe.replace("~/.local/share/seen", place.folder().to_str().unwrap());
        let told = place.run(&recipe);
        assert_eq!(told.status, Some(0), "{told:?}");
        assert!(told.stderr.contains("lost: ") && told.stderr.contains("added "), "{told:?}");
        let store = place.store();
        let kept = ids(0..4_000).filter(|id| store.is_seen(id)).count();
        assert!((3_800..4_000).contains(&kept), "{kept}");
        assert!(!has_backup || ids(0..2_000).all(|id| store.is_seen(id)));
        assert_eq!(store.verify().unwrap().problems, [""; 0]);
    }
}

fn rss(numbers: &[u32]) -> String {
    let items: Vec<String> = numbers
        .iter()
        .map(|n| {
            format!("<item><title>A &amp; \"{n}\"</title><link>https://x.org/{n}</link></item>")
        })
        .collect();
    format!("<rss version=\"2.0\"><channel><title>t</title>{}</channel></rss>", items.concat())
}

#[test]
fn the_feed_is_posted_once_and_again_where_posting_failed() {
    let place = Place::new();
    // What the recipe fetches is the feed, what it posts goes to a file.
    place.stand_in(
        "curl",
        "case \"$*\" in *--json*) if [ -e down ]; then exit 22; fi; cat >>posted;; *) cat rss.xml;; esac",
    );
    place.stand_in("xq", "exec xq-python \"$@\"");
    let missing = ["xq-python", "jq"]
        .into_iter()
        .find(|name| !place.run(&format!("command -v {name}")).stdout.contains('/'));
    if let Some(name) = missing {
        println!("SKIPPED: {name} is not installed");
        return;
    }
    let mut recipes = blocks("**RSS to chat.**");
    let (post, begin) = (recipes.next().unwrap(), recipes.next().unwrap());
    let run = |script: &str| {
        let mut shell = place.shell(script);
        shell.env("FEED", "https://x.org/rss").env("WEBHOOK", "https://chat.example.org/1");
        let told = Told::from(shell.output().unwrap());
        assert_eq!(told.stderr, "");
    };
    place.file("rss.xml", rss(&[1]));
    run(begin);
    assert_eq!(place.text("posted"), "");
    place.file("rss.xml", rss(&[1, 2, 3]));
    place.file("down", "");
    run(post);
    fs::remove_file(place.path("down")).unwrap();
    run(post);
    run(post);
    let posted: Vec<serde_json::Value> = serde_json::Deserializer::from_str(&place.text("posted"))
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    let texts = ["A & \"2\" https://x.org/2", "A & \"3\" https://x.org/3"];
    assert_eq!(posted, texts.map(|text| serde_json::json!({"text": text})));
}

#[test]
fn a_log_that_is_followed_tells_each_error_at_once_and_once() {
    let place = Place::new();
    let script = blocks("**Follow a log.**").next().unwrap();
    place.stand_in("notify", "echo \"$1\" >>told");
    place.file("app.log", "ERROR a\nINFO b\nERROR a\n");
    let append = |line: &str| {
        let log = fs::OpenOptions::new().append(true).open(place.path("app.log"));
        std::io::Write::write_all(&mut log.unwrap(), line.as_bytes()).unwrap();
    };
    for expected in ["ERROR a\nERROR c\n", "ERROR a\nERROR c\nERROR d\n"] {
        let mut shell = place.shell(&format!("echo $$ >group; {script}"));
        let mut shell = std::os::unix::process::CommandExt::process_group(&mut shell, 0)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        append(&expected[expected.len() - 8..]);
        wait_until("what was told", || place.text("told") == expected);
        // SAFETY: the group is that of our child, which was not waited for.
        assert_eq!(unsafe { libc::kill(-shell.id().cast_signed(), libc::SIGTERM) }, 0);
        shell.wait().unwrap();
    }
}

#[test]
fn the_nightly_backup_is_kept_for_a_week_and_restored() {
    let place = Place::new();
    fs::create_dir(place.path("backups")).unwrap();
    let here =
        |script: &str| script.replace("/var/backups", place.path("backups").to_str().unwrap());
    let mut recipes = blocks("**A nightly backup");
    let (table, back) = (recipes.next().unwrap(), recipes.next().unwrap());
    let job = here(table.trim_end().splitn(6, ' ').nth(5).unwrap());
    assert!(!job.contains('%'), "{job}");
    for night in 0..9 {
        place.store().mark_seen(night.to_string()).unwrap();
        place.run(&job).assert(0, &[]);
    }
    assert_eq!(fs::read_dir(place.path("backups")).unwrap().count(), 7);
    let (restore, salvage) = back.split_once('\n').unwrap();
    place.run(&here(restore)).assert(0, &[]);
    assert!(place.entry("7").is_some() && place.entry("8").is_none());
    // The rest of a store that was cut: all marks stand before the cut.
    let bytes = fs::read(place.db()).unwrap();
    fs::write(place.db(), &bytes[..bytes.len() - 1]).unwrap();
    place.run(salvage).assert(0, &["entries read"]);
    let told = place.told(&["list", "--db", "fresh.db"]);
    assert_eq!((told.status, told.stdout.lines().count()), (Some(0), 8));
}

#[test]
fn the_timer_is_understood_by_systemd_and_its_service_sends_the_report_once() {
    let place = Place::new();
    let units: Vec<&str> = blocks("**A systemd timer.**").take(2).collect();
    place.stand_in("send-report", "echo sent >>reports");
    let _ = place.shell(""); // Makes the stand-in for `seen`.
    for (unit, name) in units.iter().zip(["report.service", "report.timer"]) {
        assert!(unit.starts_with(&format!("# /etc/systemd/system/{name}\n")), "{unit}");
        place.file(name, unit.replace("/usr/local/bin", place.path("bin").to_str().unwrap()));
    }
    let line = units[0].lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let job = line.replace("/usr/local/bin/", "");
    for _ in 0..2 {
        assert_eq!(place.run(&job).status, Some(0));
    }
    assert_eq!(place.text("reports"), "sent\n");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "./report.service", "./report.timer"]).current_dir(place.folder());
    match verify.output() {
        Err(e) => println!("SKIPPED: systemd-analyze cannot be run here: {e}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let complaints: Vec<&str> =
                said.lines().filter(|line| line.contains("report.")).collect();
            assert!(output.status.success() && complaints.is_empty(), "{said}");
        }
    }
}

#[test]
fn every_recipe_names_a_scope() {
    let readme = include_str!("recipes.md");
    let recipes = readme.split_once("## Recipes").unwrap().1;
    let recipes = recipes.split_once("\n## ").unwrap().0;
    for block in recipes.split("```").skip(1).step_by(2) {
        for command in [
            "seen filter",
            "seen -q filter",
            "seen run",
            "seen -q run",
            "seen each",
            "seen -q each",
        ] {
            for used in block.split(command).skip(1) {
                assert!(used.split('\n').next().unwrap().contains("--scope"), "{command}{used}");
            }
        }
    }
}

#[test]
fn the_older_file_is_taken_over() {
    let place = Place::new();
    fs::create_dir(place.path("data")).unwrap();
    rusqlite::Connection::open(place.path("data/seen_ids.sqlite"))
        .unwrap()
        .execute_batch(
            "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
             INSERT INTO seen VALUES ('old', 1), ('new', 4000000000)",
        )
        .unwrap();
    let told = place.run(blocks("**Upgrade the file").next().unwrap());
    told.assert(0, &[]);
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert!(lines[0].starts_with("upgraded 2 ids; the old file is kept as "), "{told:?}");
    assert!(lines[0].ends_with("data/seen_ids.sqlite.v0.bak"), "{told:?}");
    assert_eq!(lines[1..], ["1 to be removed"]);
}

#[test]
fn a_script_claims_and_confirms_by_hand() {
    let place = Place::new();
    let script = blocks("## Claims from a shell").next().unwrap();
    place.stand_in("send", "echo \"sent $1\"; exit $(cat status)");
    let run = || Told::from(place.shell(script).env("id", "an id").output().unwrap());
    place.file("status", "7");
    assert_eq!(run().stdout, "sent an id\n");
    let error = place.entry("an id").unwrap().last_error;
    assert_eq!(error.as_deref(), Some("status 7"));
    run().assert(0, &["an id: it failed, and is not tried again before"]);
    place.run("seen forget 'an id'").assert(0, &[]);
    place.file("status", "0");
    assert_eq!(run().stdout, "sent an id\n");
    run().assert(0, &["an id: seen before"]);
}
