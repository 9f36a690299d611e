//! `--watch` on a terminal with a cursor: the alternate screen, its keys, its signals, its modes.

use std::process::Child;

use crate::{
    common::{eventually, kill, mechanisms, pty::Pty, wait},
    fixture::Fixture,
};

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// A terminal of 50 rows, and a job with more processes than that.
fn start(fixture: &Fixture) -> (Child, Pty) {
    let script = "for i in $(seq 60); do sleep 1000 & done; exec sleep 1001";
    let owner = fixture.start(&mechanisms()[0], "dev", &["sh", "-c", script]);
    eventually("the tree has grown", || fixture.stdout_of(&["tree", "dev"]).lines().count() > 60);
    (owner, fixture.terminal())
}

fn end(fixture: &Fixture, mut owner: Child) {
    fixture.expect_status(&["kill", "--now", "dev"], 0);
    wait(&mut owner);
    fixture.assert_empty();
}

/// The first lines are shown, as many as fit; `q` ends it with 0 and restores the screen and the modes.
#[test]
fn top_first_and_q() {
    let fixture = Fixture::new();
    let (owner, mut pty) = start(&fixture);
    let modes = pty.modes();
    for keys in ["q", "\x04"] {
        pty.send("TERM=xterm NO_COLOR=1 \"$ONEJOB\" tree --watch=0.05 dev; echo end=$?\n");
        pty.expect(ENTER);
        let first = pty.expect("q quit");
        assert!(first.contains("\x1b[H") && first.contains("dev (running)\x1b[K\r\n"), "{first:?}");
        assert!(first.contains("sleep 1001") && first.contains(" more lines   "), "{first:?}");
        // 49 lines: the last of the 50 rows is for the keys.
        assert_eq!(first.matches("\x1b[K\r\n").count(), 49, "{first:?}");
        pty.expect("q quit");
        // Other keys have no effect, and are not echoed.
        pty.send("xyz");
        assert!(!pty.expect("q quit").contains("xyz"));
        pty.send(keys);
        pty.expect(LEAVE);
        assert!(!pty.expect("end=0").contains("more lines"));
        pty.expect("READY> ");
        eventually("the modes are restored", || pty.modes() == modes);
    }
    end(&fixture, owner);
}

/// Ctrl-C and SIGTERM end it by the signal, and restore the screen and the modes.
#[test]
fn signals_restore_the_terminal() {
    let fixture = Fixture::new();
    let (owner, mut pty) = start(&fixture);
    let modes = pty.modes();
    for (signal, status) in
        [(None, "end=130"), (Some(libc::SIGTERM), "end=143"), (Some(libc::SIGHUP), "end=129")]
    {
        pty.send("TERM=xterm \"$ONEJOB\" ls --watch\n");
        pty.expect(ENTER);
        pty.expect("q quit");
        match signal {
            None => pty.send("\x03"),
            Some(signal) => kill(pty.foreground(), signal),
        }
        pty.expect(LEAVE);
        pty.expect("READY> ");
        pty.send("echo end=$?\n");
        pty.expect(status);
        pty.expect("READY> ");
        eventually("the modes are restored", || pty.modes() == modes);
    }
    end(&fixture, owner);
}

/// Ctrl-Z restores the screen and the modes, and `fg` takes them again.
#[test]
fn stopped_and_continued() {
    let fixture = Fixture::new();
    let (owner, mut pty) = start(&fixture);
    let modes = pty.modes();
    pty.send("TERM=xterm \"$ONEJOB\" tree --watch dev\n");
    pty.expect(ENTER);
    pty.expect("q quit");
    for _ in 0..3 {
        pty.send("\x1a");
        pty.expect(LEAVE);
        pty.expect("READY> ");
        eventually("the modes are restored", || pty.modes() == modes);
        // In the background it stops again. A shell that takes it to the foreground before that can see it
        // stop afterwards.
        pty.send("bg; until [ -n \"$(jobs -s)\" ]; do sleep .05; done; echo d''one\n");
        pty.expect("done");
        pty.expect("READY> ");
        pty.send("fg\n");
        pty.expect(ENTER);
        pty.expect("q quit");
    }
    pty.send("q");
    pty.expect(LEAVE);
    pty.expect("READY> ");
    eventually("the modes are restored", || pty.modes() == modes);
    end(&fixture, owner);
}

/// A new size of the terminal is drawn at once.
#[test]
fn new_size_is_drawn_at_once() {
    let fixture = Fixture::new();
    let (owner, mut pty) = start(&fixture);
    pty.send("TERM=xterm \"$ONEJOB\" tree --watch=1h dev\n");
    pty.expect("q quit");
    for columns in [40, 60] {
        pty.resize(columns);
        let drawn = pty.expect("q quit");
        let widths = drawn.split("\x1b[K").map(|line| line.trim_start_matches("\r\n"));
        let longest =
            widths.filter(|line| !line.contains('\x1b')).map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|width| width <= columns.into()), "{longest:?} {drawn:?}");
    }
    pty.send("q");
    pty.expect("READY> ");
    end(&fixture, owner);
}

/// Without keys from a terminal it ends with Ctrl-C.
#[test]
fn without_keys() {
    let fixture = Fixture::new();
    let (owner, mut pty) = start(&fixture);
    pty.send("TERM=xterm \"$ONEJOB\" ls --watch=0.05 </dev/null\n");
    pty.expect(ENTER);
    (0..3).for_each(|_| drop(pty.expect("Ctrl-C quit")));
    pty.send("\x03");
    pty.expect(LEAVE);
    pty.expect("READY> ");
    pty.send("echo end=$?\n");
    pty.expect("end=130");
    end(&fixture, owner);
}
