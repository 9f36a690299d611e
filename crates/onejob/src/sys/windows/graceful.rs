//! The graceful stop: a break event for console process groups, a close message for windows.

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

/// A process that leads a console process group. While the handle is open, its pid, which is also the
/// number of the group, is not reused.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) leader: u32,
    pub(super) process: OwnedHandle,
}

/// Requests a graceful end of all members that support it; returns the pids of these members.
pub(super) fn request_end(members: &[Member], groups: &[Group]) -> HashSet<u32> {
    let mut asked = close_windows(members);
    // SAFETY: two numbers.
    let send = |event, group| unsafe { GenerateConsoleCtrlEvent(event, group) } != 0;
    asked.extend(break_groups(groups, &send));
    asked
}

/// Sends a break event to the groups with a live leader: the number of a group is reserved only while
/// its leader lives.
fn break_groups(groups: &[Group], send: &dyn Fn(u32, u32) -> bool) -> Vec<u32> {
    let living = groups.iter().filter(|group| !is_signalled(group.process.as_handle()));
    let leaders = living.map(|group| group.leader);
    leaders.filter(|leader| send(CTRL_BREAK_EVENT, *leader)).collect()
}

struct WindowCloser {
    members: HashSet<u32>,
    asked: HashSet<u32>,
}

/// Handles of the members are open, so a window with the pid of a member belongs to that member.
fn close_windows(members: &[Member]) -> HashSet<u32> {
    let members = members.iter().map(|member| member.pid).collect();
    let mut closing = WindowCloser { members, asked: HashSet::new() };
    // SAFETY: the callback gets the address of `closing`, which lives through the call.
    unsafe { EnumWindows(Some(close), &raw mut closing as LPARAM) };
    closing.asked
}

unsafe extern "system" fn close(window: HWND, closing: LPARAM) -> BOOL {
    // SAFETY: the address that `close_windows` passes; there is no other reference to it meanwhile.
    let closing = unsafe { &mut *(closing as *mut WindowCloser) };
    let mut pid = 0;
    // SAFETY: a window handle, which may be invalid by now, and a place to write to.
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

    /// A break event is sent to the number of each group with a live leader.
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
            "a group that was not reached is not returned"
        );
        living.kill().expect("killed");
        living.wait().expect("ended");
    }
}
