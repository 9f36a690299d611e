//! `onejob tree`: the process trees of jobs, or the descendants of a process.

use std::time::Duration;

use onejob::{Job, JobEntry, Process, ProcessId, Tree, TreeNode, tree_below};
use serde::Serialize;

use super::{
    find::{self, Found},
    ls::observed,
    state::State,
};
use crate::{
    args::TreeArgs,
    exit::Exit,
    failure::Failure,
    note::Note,
    os::{self, ProcessInfo},
    render::{
        self, Listing,
        table::{Table, TerminalStyle, age, bytes, or_dash, printable, seconds},
    },
};

/// The JSON keys are stable: keys may be added, the others keep their meaning, or `schema` changes.
#[derive(Serialize)]
struct TreeList {
    schema: u32,
    trees: Vec<JobTree>,
}

/// The tree of a job (`name`, `id`, `state`) or of a process (`pid`).
#[derive(Serialize)]
struct JobTree {
    name: Option<String>,
    id: Option<String>,
    state: Option<State>,
    pid: Option<u32>,
    processes: Vec<ProcessNode>,
}

#[derive(Serialize)]
struct ProcessNode {
    pid: u32,
    parent_pid: Option<u32>,
    name: String,
    orphan: bool,
    user: Option<String>,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    age_seconds: Option<f64>,
    argv: Option<Vec<String>>,
    children: Vec<ProcessNode>,
}

pub(super) fn tree(args: &TreeArgs) -> Result<Exit, Failure> {
    render::show(args.listing, || {
        let trees = match &args.target {
            None => onejob::jobs()?.filter_map(|entry| tree_of_entry(&entry)).collect(),
            Some(target) => match find::job_or_process(target)? {
                Found::Job(job) => {
                    vec![tree_of_job(&job, find::entry_of(&job)?.as_ref())?]
                }
                Found::Process(pid) => vec![tree_of_process(pid)?],
            },
        };
        Ok(TreeList { schema: 1, trees })
    })
}

/// `None` if the job has ended meanwhile or cannot be observed.
fn tree_of_entry(entry: &JobEntry) -> Option<JobTree> {
    observed(entry, |job| tree_of_job(job, Some(entry))).map(|(_, tree)| tree)
}

fn tree_of_job(job: &Job, entry: Option<&JobEntry>) -> Result<JobTree, Failure> {
    let parents = ExpectedParents::new(job, entry);
    let Tree { roots } = job.tree()?;
    Ok(JobTree {
        name: job.name().map(str::to_owned),
        id: job.id().map(str::to_owned),
        state: Some(State::of(parents.note.as_ref(), &job.processes()?, None)),
        pid: None,
        processes: roots.into_iter().map(|root| node(root, Some(&parents))).collect(),
    })
}

fn tree_of_process(pid: u32) -> Result<JobTree, Failure> {
    let Tree { roots } = tree_below(&ProcessId::of(pid)?)?;
    let processes = roots.into_iter().map(|root| node(root, None)).collect();
    Ok(JobTree { name: None, id: None, state: None, pid: Some(pid), processes })
}

/// The parents of members that are not orphans.
struct ExpectedParents {
    owner: Option<u32>,
    /// The processes that orphans can be re-parented to: the ancestors of the owner. Under Subreaper it
    /// is the guard, which is also the parent of members that it has started.
    reapers: Vec<u32>,
    reaps_orphans: bool,
    note: Option<Note>,
}

impl ExpectedParents {
    fn new(job: &Job, entry: Option<&JobEntry>) -> ExpectedParents {
        let owner = entry.and_then(|entry| entry.owner).map(|owner| owner.pid());
        ExpectedParents {
            owner,
            reapers: owner.map(os::ancestors).unwrap_or_default(),
            reaps_orphans: job.guarantees().reaps_orphans,
            note: Note::read(job),
        }
    }

    fn is_orphan(&self, process: &Process, info: Option<&ProcessInfo>) -> bool {
        let pid = Some(process.pid());
        let main = self.note.as_ref().and_then(|note| note.pid);
        if pid == self.owner || pid == main {
            return false;
        }
        match self.reaps_orphans {
            // The guard makes the processes that it starts for `onejob exec` leaders of a process
            // group. In the job of another program they cannot be told from orphans.
            true => main.is_some() && info.is_some_and(|info| !info.leads_group_only),
            false => process.parent.is_some_and(|parent| self.reapers.contains(&parent)),
        }
    }
}

fn node(
    TreeNode { process, children, .. }: TreeNode,
    parents: Option<&ExpectedParents>,
) -> ProcessNode {
    let info = os::process_info(&process);
    let seconds = |time: Duration| time.as_secs_f64();
    ProcessNode {
        pid: process.pid(),
        parent_pid: process.parent,
        orphan: parents.is_some_and(|parents| parents.is_orphan(&process, info.as_ref())),
        name: process.name,
        user: info.as_ref().map(|info| info.user.clone()),
        cpu_seconds: info.as_ref().map(|info| seconds(info.cpu)),
        memory_bytes: info.as_ref().map(|info| info.memory),
        age_seconds: info.as_ref().map(|info| seconds(info.age)),
        argv: info.map(|info| info.argv),
        children: children.into_iter().map(|child| node(child, None)).collect(),
    }
}

impl Listing for TreeList {
    fn draw(&self, style: TerminalStyle) -> String {
        let draw = |tree: &JobTree| tree.title(style) + &tree.draw(style);
        self.trees.iter().map(draw).collect::<Vec<_>>().join("\n")
    }
}

impl JobTree {
    /// The name and state of a job. The tree of a process has no title.
    fn title(&self, style: TerminalStyle) -> String {
        let (Some(name), Some(state)) = (self.name.as_ref().or(self.id.as_ref()), self.state)
        else {
            return String::new();
        };
        let title = format!("{} ({state})", printable(name));
        if style.is_coloured() { format!("\x1b[1m{title}\x1b[0m\n") } else { title + "\n" }
    }

    fn draw(&self, style: TerminalStyle) -> String {
        let mut table = Table::new(["PID", "USER", "CPU", "MEMORY", "AGE", "COMMAND"]);
        self.processes.iter().for_each(|root| root.add_to(&mut table, "", ""));
        table.draw(style, [true, false, true, true, true, false])
    }
}

impl ProcessNode {
    /// Adds a row for the process and rows for its children. `branch` is drawn before the process,
    /// `trunk` before its children.
    fn add_to(&self, table: &mut Table<6>, branch: &str, trunk: &str) {
        let time = |value: Option<f64>| value.map(Duration::from_secs_f64);
        let command = self.argv.as_ref().map_or(self.name.clone(), |argv| argv.join(" "));
        let mark = if self.orphan { "(orphan) " } else { "" };
        table.add([
            self.pid.to_string(),
            or_dash(self.user.clone()),
            or_dash(time(self.cpu_seconds).map(seconds)),
            or_dash(self.memory_bytes.map(bytes)),
            or_dash(time(self.age_seconds).map(age)),
            format!("{branch}{mark}{command}"),
        ]);
        if let Some((last, others)) = self.children.split_last() {
            let mut draw = |child: &ProcessNode, branch: &str, more: &str| {
                child.add_to(table, &format!("{trunk}{branch}"), &format!("{trunk}{more}"));
            };
            others.iter().for_each(|child| draw(child, "├─ ", "│  "));
            draw(last, "└─ ", "   ");
        }
    }
}
