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
pub(super) fn politely(members: &[Member], groups: &[Group]) -> HashSet<u32> {
    let mut asked = close_windows(members);
    for group in groups.iter().filter(|group| !is_signalled(group.process.as_handle())) {
        // SAFETY: two numbers.
        let sent = unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, group.leader) } != 0;
        if sent {
            asked.insert(group.leader);
        }
    }
    asked
}

struct Closing {
    members: HashSet<u32>,
    asked: HashSet<u32>,
}

/// The members are held, so a window with such a number is theirs.
fn close_windows(members: &[Member]) -> HashSet<u32> {
    let members = members.iter().map(|member| member.pid).collect();
    let mut closing = Closing { members, asked: HashSet::new() };
    // SAFETY: the callback gets the address of `closing`, which lives through the call.
    unsafe { EnumWindows(Some(close), &raw mut closing as LPARAM) };
    closing.asked
}

unsafe extern "system" fn close(window: HWND, closing: LPARAM) -> BOOL {
    // SAFETY: the address that `close_windows` passes, which nobody else uses meanwhile.
    let closing = unsafe { &mut *(closing as *mut Closing) };
    let mut pid = 0;
    // SAFETY: a window's handle, which may be gone by now, and a place to write to.
    unsafe { GetWindowThreadProcessId(window, &raw mut pid) };
    // SAFETY: as above.
    if closing.members.contains(&pid) && unsafe { PostMessageW(window, WM_CLOSE, 0, 0) } != 0 {
        closing.asked.insert(pid);
    }
    1
}
