//! Answers are right, come to whoever cannot wait, and stay.

use std::collections::BTreeSet;
use std::sync::mpsc::Sender;

use super::*;

/// How long things may wait to be told.
const WAIT: Duration = Duration::from_hours(1);

/// Finds what it is told to find.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<HashMap<u64, String>>>);

impl Told {
    fn set(&self, cgroup: u64, path: &str) {
        self.0.lock().unwrap().insert(cgroup, path.to_owned());
    }

    fn remove(&self, cgroup: u64) {
        self.0.lock().unwrap().remove(&cgroup);
    }
}

impl Find for Told {
    fn path(&mut self, cgroup: u64, _heard: Instant) -> Option<String> {
        self.0.lock().unwrap().get(&cgroup).cloned()
    }
}

/// Meets no cgroup on its walks, each of which is told of and then waits for leave.
struct Walks {
    last: Option<Instant>,
    begun: Sender<u64>,
    leave: Receiver<()>,
}

impl Find for Walks {
    fn path(&mut self, cgroup: u64, heard: Instant) -> Option<String> {
        if self.last.is_none_or(|last| last < heard) {
            self.last = Some(Instant::now());
            self.begun.send(cgroup).unwrap();
            self.leave.recv().unwrap();
        }
        None
    }
}

fn walking() -> (Directory, Receiver<u64>, SyncSender<()>) {
    let ((begun, walks), (go, leave)) = (std::sync::mpsc::channel(), sync_channel(QUEUE));
    let finder = Walks { last: None, begun, leave };
    (Directory::start_with(Box::new(finder), nowhere(), WAIT).unwrap(), walks, go)
}

fn nowhere() -> Logs {
    Logs { pods: "/nonexistent".into(), containers: "/nonexistent".into() }
}

fn directory(paths: &[(u64, &str)]) -> (Directory, Told) {
    let told = Told::default();
    for (cgroup, path) in paths {
        told.set(*cgroup, path);
    }
    (Directory::start_with(Box::new(told.clone()), nowhere(), WAIT).unwrap(), told)
}

fn settled(directory: &Directory, cgroup: u64) -> Known {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match directory.identity(cgroup) {
            Known::Pending if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            known => return known,
        }
    }
}

fn name(known: &Known) -> Option<String> {
    match known {
        Known::Of(identity) => {
            identity.attributes().find(|(key, _)| *key == "service.name").map(|(_, name)| name.to_owned())
        }
        Known::Host | Known::Pending => None,
    }
}

#[test]
fn what_is_noted_is_looked_up() {
    let (directory, _) = directory(&[(1, "/"), (5, "/system.slice/nginx.service")]);
    for cgroup in [1, 5] {
        directory.note(cgroup);
    }
    assert_eq!(name(&settled(&directory, 5)).as_deref(), Some("nginx"));
    assert_eq!(settled(&directory, 1), Known::Host);
    assert_eq!(directory.unresolved(), 0);
    assert_eq!(settled(&directory, 9), Known::Host);
    assert_eq!(directory.unresolved(), 1, "once");
    assert_eq!(directory.identity(0), Known::Host, "nobody knows of any");
    assert!(directory.note(0));
}

#[test]
fn who_cannot_wait_is_told_at_once() {
    let (directory, _) = directory(&[(5, "/system.slice/nginx.service")]);
    let identity = directory.resolve(5, Instant::now()).unwrap();
    assert_eq!(directory.identity(5), Known::Of(identity));
    assert_eq!(directory.resolve(6, Instant::now()), None);
    assert_eq!((directory.identity(6), directory.unresolved()), (Known::Host, 1));
}

#[test]
fn an_answer_stays() {
    let (directory, told) = directory(&[(5, "/system.slice/nginx.service")]);
    let before = settled(&directory, 5);
    told.set(5, "/system.slice/other.service");
    assert_eq!(directory.identity(5), before);
    told.remove(5);
    assert_eq!((directory.resolve(5, Instant::now()).map(Known::Of), directory.unresolved()), (Some(before), 0));
    assert_eq!(directory.resolve(6, Instant::now()), None);
    told.set(6, "/system.slice/late.service");
    assert_eq!(directory.resolve(6, Instant::now()), None, "its first spans were told as the host's");
}

#[test]
fn names_are_waited_for_unless_somebody_cannot() {
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "0a1b2c3d-0001-4fff-8abc-0123456789ab";
    let root = tempfile::tempdir().unwrap();
    let logs = Logs { pods: root.path().join("pods"), containers: root.path().join("containers") };
    std::fs::create_dir_all(&logs.pods).unwrap();
    let told = Told::default();
    let other = ID.replace('f', "0");
    told.set(5, &format!("/kubepods/pod{UID}/{ID}"));
    told.set(6, &format!("/kubepods/pod{UID}/{other}"));
    let directory = Directory::start_with(Box::new(told.clone()), logs.clone(), WAIT).unwrap();
    for cgroup in [5, 6] {
        directory.note(cgroup);
    }
    let is_found = |cgroup| directory.0.read().contains_key(&cgroup);
    while !is_found(5) || !is_found(6) {
        std::thread::sleep(Duration::from_millis(1));
    }
    // From here on they are gone, and what is known of them is all there will ever be.
    told.remove(5);
    told.remove(6);
    let pod = |identity: &Identity| identity.attributes().any(|(key, _)| key == "k8s.pod.name");
    assert!(!pod(&directory.resolve(6, Instant::now()).unwrap()), "no name was there yet");
    std::fs::create_dir_all(logs.pods.join(format!("shop_web_{UID}/nginx"))).unwrap();
    let Known::Of(identity) = settled(&directory, 5) else { panic!("it has an owner") };
    assert!(pod(&identity), "{identity:?}");
    assert!(!pod(&directory.resolve(6, Instant::now()).unwrap()), "an answer stays");
    assert_eq!(directory.unresolved(), 0);
}

fn known(directory: &Directory) -> BTreeSet<u64> {
    directory.0.read().keys().copied().collect()
}

/// Sweeps so long after the start.
fn sweep(directory: &Directory, after: Duration) {
    directory.0.sweep(&mut **directory.0.finder(), after.as_secs() as u32);
}

#[test]
fn only_what_is_gone_and_not_asked_for_is_forgotten() {
    let (directory, told) = directory(&[(5, "/a.service"), (6, "/b.service"), (7, "/c.service")]);
    let resolve = |cgroup| name(&Known::Of(directory.resolve(cgroup, Instant::now()).unwrap())).unwrap();
    assert_eq!([5, 6, 7].map(resolve), ["a", "b", "c"]);
    told.remove(5);
    told.remove(6);
    let later = u64::from(directory.0.kept) + 1;
    directory.0.read()[&6].asked.store(later as u32, Ordering::Relaxed); // somebody still asks
    sweep(&directory, Duration::from_secs(later));
    assert_eq!(known(&directory), [6, 7].into());
}

#[test]
fn what_waits_longest_still_finds_its_owner() {
    for wait in [Duration::ZERO, Duration::from_secs(1), WAIT, Duration::from_hours(24 * 7)] {
        let told = Told::default();
        told.set(5, "/system.slice/nginx.service");
        let directory = Directory::start_with(Box::new(told.clone()), nowhere(), wait).unwrap();
        let before = directory.resolve(5, Instant::now());
        told.remove(5);
        // A queue knows ages to a 32nd, and its last request takes a while.
        sweep(&directory, wait + wait / 32 + KEPT);
        assert!(before.is_some());
        assert_eq!(directory.settle(5, Instant::now()), before, "{wait:?}");
        directory.0.read()[&5].asked.store(0, Ordering::Relaxed);
        sweep(&directory, wait + wait / 16 + KEPT + Duration::from_secs(2));
        assert_eq!(known(&directory), BTreeSet::new(), "{wait:?}");
    }
}

#[test]
fn the_directory_is_bounded() {
    const LAST: u64 = LIMIT as u64;
    let share = SHARE as u64;
    let (directory, told) = directory(&[]);
    let fill = || {
        let entry = |id| Entry { state: State::Settled(None), asked: AtomicU32::new(id as u32) };
        *directory.0.write() = (1..=LAST).map(|id| (id, entry(id))).collect();
    };
    // All of them are there: those that nobody has asked for longest go.
    (1..=LAST).for_each(|id| told.set(id, "/"));
    fill();
    directory.resolve(LAST + 1, Instant::now());
    assert_eq!(known(&directory), (share + 1..=LAST + 1).collect());
    directory.resolve(LAST + 2, Instant::now());
    assert_eq!(known(&directory), (share + 1..=LAST + 2).collect(), "there is room");
    // Some are gone: they go first, however late somebody asked for them.
    (LAST - 9..=LAST).for_each(|id| told.remove(id));
    fill();
    directory.resolve(LAST + 1, Instant::now());
    let left = (share - 9..=LAST - 10).chain([LAST + 1]);
    assert_eq!(known(&directory), left.collect());
    // More are gone than have to go: the oldest of them.
    (2..=LAST).for_each(|id| told.remove(id));
    fill();
    directory.resolve(LAST + 1, Instant::now());
    assert_eq!(known(&directory), [1].into_iter().chain(share + 2..=LAST + 1).collect());
}

#[test]
fn one_walk_is_enough_for_all_that_had_been_heard_of_before_it() {
    let (directory, walks, go) = walking();
    (0..QUEUE).for_each(|_| go.send(()).unwrap());
    let heard = Instant::now();
    for cgroup in 1..=300 {
        assert_eq!(directory.settle(cgroup, heard), None);
    }
    assert_eq!(walks.try_iter().collect::<Vec<u64>>(), [1]);
    assert_eq!(directory.settle(301, Instant::now()), None);
    assert_eq!(walks.try_iter().collect::<Vec<u64>>(), [301], "it may be younger than the first");
    assert_eq!(directory.unresolved(), 301);
}

#[test]
fn a_walk_proves_nothing_of_what_is_noted_while_it_goes() {
    let (directory, walks, go) = walking();
    let end = Duration::from_secs(20);
    assert!(directory.note(1));
    assert_eq!(walks.recv_timeout(end), Ok(1));
    assert!((2..=300).all(|cgroup| directory.note(cgroup)));
    let heard = Instant::now();
    go.send(()).unwrap();
    // One walk for all of them, begun when they had been noted.
    assert_eq!(walks.recv_timeout(end), Ok(2));
    go.send(()).unwrap();
    assert_eq!(directory.settle(300, heard), None);
    assert!((2..=300).all(|cgroup| settled(&directory, cgroup) == Known::Host));
    assert_eq!(walks.try_iter().count(), 0);
    assert_eq!(directory.unresolved(), 300);
}

#[test]
fn whoever_notes_waits_for_nobody() {
    let (directory, _) = directory(&[]);
    let shared = Arc::clone(&directory.0);
    let _finder = shared.finder();
    // More than may wait, while nothing is looked up.
    let refused = (1..=3 * QUEUE as u64).filter(|cgroup| !directory.note(*cgroup)).count();
    assert!(refused >= QUEUE, "{refused}");
    let _known = shared.write();
    assert!(!directory.note(1), "it will be noted again");
}
