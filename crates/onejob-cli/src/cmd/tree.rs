//! `onejob tree`: who is in a job, or below a process, and how they belong together.

use std::time::Duration;

use onejob::{Job, JobEntry, Mechanism, Process, ProcessId, Tree, TreeNode, tree_below};
use serde::Serialize;

use crate::{
    args::{self, Target},
    exit::{Exit, Failure},
    note::Note,
    os::{self, Details},
    render::table::{Screen, Table, age, bytes, printable, seconds, unknown_or},
    render::{Listing, show},
};

/// The JSON's keys are a promise: new ones may come, these stay, or `schema` grows.
#[derive(Serialize)]
struct Trees {
    schema: u32,
    trees: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    /// What the tree is of: a job, or a process.
    job: Option<String>,
    id: Option<String>,
    pid: Option<u32>,
    processes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    pid: u32,
    parent_pid: Option<u32>,
    name: String,
    orphan: bool,
    user: Option<String>,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    age_seconds: Option<f64>,
    command: Option<String>,
    children: Vec<Node>,
}

pub(crate) fn tree(args: &args::Tree) -> Exit {
    show(args.show, || {
        let trees = match &args.target {
            None => onejob::jobs()?.filter_map(|entry| of_entry(&entry)).collect(),
            Some(Target::Job(name)) => {
                let job = Job::open(name)?;
                let is_this = |entry: &JobEntry| Some(entry.id.as_str()) == job.id();
                vec![of_job(&job, onejob::jobs()?.find(is_this).as_ref())?]
            }
            Some(Target::Pid(pid)) => vec![of_process(*pid)?],
        };
        Ok(Trees { schema: 1, trees })
    })
}

/// A job that ends while we look has no tree.
fn of_entry(entry: &JobEntry) -> Option<Shown> {
    of_job(&entry.open().ok()?, Some(entry)).ok()
}

fn of_job(job: &Job, entry: Option<&JobEntry>) -> Result<Shown, Failure> {
    let origin = Origin::of(job, entry);
    let Tree { roots } = job.tree()?;
    Ok(Shown {
        job: job.name().map(str::to_owned),
        id: job.id().map(str::to_owned),
        pid: None,
        processes: roots.into_iter().map(|root| node(root, Some(&origin))).collect(),
    })
}

fn of_process(pid: u32) -> Result<Shown, Failure> {
    let Tree { roots } = tree_below(&ProcessId::of(pid)?)?;
    let processes = roots.into_iter().map(|root| node(root, None)).collect();
    Ok(Shown { job: None, id: None, pid: Some(pid), processes })
}

/// What tells a member that was started directly from one that has lost its parent.
struct Origin {
    owner: Option<u32>,
    /// Who gets orphans: the owner's own ancestors; under Subreaper the guard, which starts members
    /// itself, too.
    reapers: Vec<u32>,
    is_guarded: bool,
    main: Option<u32>,
}

impl Origin {
    fn of(job: &Job, entry: Option<&JobEntry>) -> Origin {
        let owner = entry.and_then(|entry| entry.owner).map(|owner| owner.pid());
        Origin {
            owner,
            reapers: owner.map(os::ancestors).unwrap_or_default(),
            is_guarded: job.guarantees().mechanism == Mechanism::Subreaper,
            main: Note::on(job).and_then(|note| note.pid),
        }
    }

    fn has_lost_its_parent(&self, process: &Process, details: Option<&Details>) -> bool {
        let pid = Some(process.pid());
        if pid == self.owner || pid == self.main {
            return false;
        }
        match self.is_guarded {
            // As the guard starts processes for others than the owner. What a program of somebody's
            // own has started cannot be told from orphans.
            true => self.main.is_some() && details.is_some_and(|it| !it.leads_a_mere_group),
            false => process.parent.is_some_and(|parent| self.reapers.contains(&parent)),
        }
    }
}

fn node(TreeNode { process, children, .. }: TreeNode, origin: Option<&Origin>) -> Node {
    let details = os::details(&process);
    let seconds = |time: Duration| time.as_secs_f64();
    Node {
        pid: process.pid(),
        parent_pid: process.parent,
        orphan: origin.is_some_and(|origin| origin.has_lost_its_parent(&process, details.as_ref())),
        name: process.name,
        user: details.as_ref().map(|details| details.user.clone()),
        cpu_seconds: details.as_ref().map(|details| seconds(details.cpu)),
        memory_bytes: details.as_ref().map(|details| details.memory),
        age_seconds: details.as_ref().map(|details| seconds(details.age)),
        command: details.map(|details| details.command),
        children: children.into_iter().map(|child| node(child, None)).collect(),
    }
}

impl Listing for Trees {
    fn draw(&self, screen: Screen) -> String {
        let draw = |tree: &Shown| tree.title(screen) + &tree.draw(screen);
        self.trees.iter().map(draw).collect::<Vec<_>>().join("\n")
    }
}

impl Shown {
    /// A process is its own title.
    fn title(&self, screen: Screen) -> String {
        let title = match (&self.job, &self.id) {
            (Some(name), Some(id)) => format!("{} ({id})", printable(name)),
            (_, Some(id)) => id.clone(),
            _ => return String::new(),
        };
        if screen.is_styled() { format!("\x1b[1m{title}\x1b[0m\n") } else { title + "\n" }
    }

    fn draw(&self, screen: Screen) -> String {
        let mut table = Table::new(["PID", "USER", "CPU", "MEMORY", "AGE", "COMMAND"]);
        self.processes.iter().for_each(|root| root.add_to(&mut table, "", ""));
        table.draw(screen, [true, false, true, true, true, false])
    }
}

impl Node {
    /// Adds a line for it and those for its children. `branch` leads to it, `trunk` past it.
    fn add_to(&self, table: &mut Table<6>, branch: &str, trunk: &str) {
        let time = |value: Option<f64>| value.map(Duration::from_secs_f64);
        let command = self.command.clone().unwrap_or_else(|| self.name.clone());
        let mark = if self.orphan { "(orphan) " } else { "" };
        table.add([
            self.pid.to_string(),
            unknown_or(self.user.clone()),
            unknown_or(time(self.cpu_seconds).map(seconds)),
            unknown_or(self.memory_bytes.map(bytes)),
            unknown_or(time(self.age_seconds).map(age)),
            format!("{branch}{mark}{command}"),
        ]);
        if let Some((last, others)) = self.children.split_last() {
            let mut draw = |child: &Node, branch: &str, more: &str| {
                child.add_to(table, &format!("{trunk}{branch}"), &format!("{trunk}{more}"));
            };
            others.iter().for_each(|child| draw(child, "├─ ", "│  "));
            draw(last, "└─ ", "   ");
        }
    }
}
