//! `tenure watch`: one line for each change, as it happens.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

use std::fs::File;

use common::{Running, Scene, kill, schema, wait};
use rustix::process::Signal;
use serde_json::Value;

/// A `tenure watch` and the file that it prints to.
struct Watching<'a> {
    running: Running<'a>,
    scene: &'a Scene,
    file: &'static str,
}

impl<'a> Watching<'a> {
    fn start(scene: &'a Scene, line: &str, file: &'static str) -> Self {
        let mut command = scene.tenure();
        command.args(line.split(' '));
        let stdout = File::create(scene.path(file)).unwrap();
        Self { running: scene.spawn_to(command, stdout), scene, file }
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.scene.path(self.file)).unwrap();
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for the line of that number, counted from 0.
    #[track_caller]
    fn line(&self, number: usize) -> String {
        wait(&format!("line {number} of {:?}", self.lines()), || self.lines().len() > number);
        self.lines()[number].clone()
    }

    /// Ends it as Ctrl-C does: all lines.
    fn end(self) -> Vec<String> {
        let lines = self.scene.path(self.file);
        self.running.signal(Signal::INT);
        let ended = self.running.end();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        std::fs::read_to_string(lines).unwrap().lines().map(str::to_owned).collect()
    }
}

#[test]
fn watch_shows_a_grant_a_release_and_a_new_holder() {
    let scene = Scene::new("watch");
    assert_eq!(scene.run("run y --quiet", &["true"]).code, 0);
    let people = Watching::start(&scene, "watch", "people");
    let programs = Watching::start(&scene, "watch --json", "programs");
    let one = Watching::start(&scene, "watch y", "one");
    for (token, instance) in [(1, "first"), (2, "second")] {
        let holder = scene.start(&format!("run x --instance {instance}"), &["sleep", "60"]);
        let line = people.line(2 * token - 2);
        assert!(line.starts_with(&format!("x is held by {instance} (pid ")), "{line}");
        assert!(line.ends_with(&format!("(token {})", token + 1)), "{line}");
        programs.line(2 * token - 2);
        holder.signal(Signal::TERM);
        assert_eq!(holder.end().code, 143);
        let line = people.line(2 * token - 1);
        assert!(line.starts_with(&format!("x is free; {instance} (pid ")), "{line}");
        programs.line(2 * token - 1);
    }
    // What nobody gives back any more is seen to run out.
    let holder = scene.start("run y --ttl 2s --instance third", &["sleep", "60"]);
    assert!(people.line(4).starts_with("y is held by third (pid "), "{}", people.line(4));
    let (supervisor, keeper) = (holder.supervisor(), holder.keeper());
    kill(supervisor, Signal::KILL);
    kill(keeper, Signal::KILL);
    assert!(people.line(5).starts_with("y has expired; third (pid "), "{}", people.line(5));
    programs.line(5);
    one.line(1);
    let people = people.end();
    assert_eq!(people.len(), 6, "{people:?}");
    assert_eq!(one.end(), people[4..], "x is not what it watches");

    let objects: Vec<Value> =
        programs.end().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    objects.iter().for_each(schema::assert_kept);
    let told = objects.iter().map(|one| {
        let word = |field: &str| one[field].as_str().unwrap().to_owned();
        format!("{} {} {} {}", word("name"), word("state"), word("holder"), one["token"])
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        ["x held first 2", "x free first 2", "x held second 3", "x free second 3"]
            .into_iter()
            .chain(["y held third 4", "y expired third 4"])
            .collect::<Vec<_>>()
    );
}

#[test]
fn watch_shows_the_first_name_of_a_store_though_it_is_free_again() {
    let scene = Scene::new("watch-first");
    assert_eq!(scene.run("status x", &[]).code, 0);
    let people = Watching::start(&scene, "watch", "people");
    // It has looked at the empty store when it has the file open.
    let watcher = people.running.supervisor();
    wait("a look", || {
        let files = std::fs::read_dir(format!("/proc/{watcher}/fd")).into_iter().flatten();
        let mut links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        links.any(|file| file.ends_with("leases.db"))
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(scene.run("run x --quiet", &["true"]).code, 0);
    assert!(people.line(0).starts_with("x is "), "{}", people.line(0));
}
