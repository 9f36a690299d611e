//! The polite rung: a break to console groups of their own, a close to windows.

use std::{
    collections::HashSet,
    os::windows::io::{AsHandle as _, OwnedHandle},
};

use windows_sys::{
    Win32::{
        Foundation::{HWND, LPARAM},
        System::Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent},
        UI::WindowsAndMessaging::{EnumWindows, GetWindowThreadProcessId, PostMessageW, WM_CLOSE},
    },
    core::BOOL,
};

use super::{handles::is_signalled, object::Member};

/// A process that was started as the first of a console group. The handle keeps its number, which
/// is the group's, from being anybody else's.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) leader: u32,
    pub(super) process: OwnedHandle,
}

/// Asks those of the members that can be asked; which ones.
pub(super) fn request_end(members: &[Member], groups: &[Group]) -> HashSet<u32> {
    let mut asked = close_windows(members);
    // SAFETY: two numbers.
    let send = |event, group| unsafe { GenerateConsoleCtrlEvent(event, group) } != 0;
    asked.extend(break_groups(groups, &send));
    asked
}

/// Sends a break to the groups whose leaders live: a group's number is its own only as long.
fn break_groups(groups: &[Group], send: &dyn Fn(u32, u32) -> bool) -> Vec<u32> {
    let living = groups.iter().filter(|group| !is_signalled(group.process.as_handle()));
    let leaders = living.map(|group| group.leader);
    leaders.filter(|leader| send(CTRL_BREAK_EVENT, *leader)).collect()
}

struct WindowCloser {
    members: HashSet<u32>,
    asked: HashSet<u32>,
}

/// The members are held, so a window with such a number is theirs.
fn close_windows(members: &[Member]) -> HashSet<u32> {
    let members = members.iter().map(|member| member.pid).collect();
    let mut closing = WindowCloser { members, asked: HashSet::new() };
    // SAFETY: the callback gets the address of `closing`, which lives through the call.
    unsafe { EnumWindows(Some(close), &raw mut closing as LPARAM) };
    closing.asked
}

unsafe extern "system" fn close(window: HWND, closing: LPARAM) -> BOOL {
    // SAFETY: the address that `close_windows` passes, which nobody else uses meanwhile.
    let closing = unsafe { &mut *(closing as *mut WindowCloser) };
    let mut pid = 0;
    // SAFETY: a window's handle, which may be gone by now, and a place to write to.
    unsafe { GetWindowThreadProcessId(window, &raw mut pid) };
    // SAFETY: as above.
    if closing.members.contains(&pid) && unsafe { PostMessageW(window, WM_CLOSE, 0, 0) } != 0 {
        closing.asked.insert(pid);
    }
    1
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        process::{Child, Command, Stdio},
    };

    use super::*;

    fn group(child: &Child) -> Group {
        let process = child.as_handle().try_clone_to_owned().expect("a handle of its own");
        Group { leader: child.id(), process }
    }

    /// A break goes to the number of each group whose leader lives.
    #[test]
    fn break_reaches_each_group_with_a_live_leader() {
        let waiting = |mut command: Command| {
            command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("started")
        };
        let mut cmd = Command::new("cmd");
        cmd.args(["/c", "pause"]);
        let mut living = waiting(cmd);
        let mut dead = Command::new("cmd").args(["/c", "exit"]).spawn().expect("started");
        dead.wait().expect("ended");
        let sent = RefCell::new(Vec::new());
        let send = |event, group| {
            sent.borrow_mut().push((event, group));
            true
        };
        let groups = [group(&dead), group(&living)];
        assert_eq!(break_groups(&groups, &send), [living.id()]);
        assert_eq!(*sent.borrow(), [(CTRL_BREAK_EVENT, living.id())]);
        assert!(
            break_groups(&groups, &|_, _| false).is_empty(),
            "who was not reached was not asked"
        );
        living.kill().expect("killed");
        living.wait().expect("ended");
    }
}
