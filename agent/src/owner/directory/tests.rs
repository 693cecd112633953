//! Answers are right, come to whoever cannot wait, and stay.

use super::*;

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
    fn path(&mut self, cgroup: u64, _asked: Instant) -> Option<String> {
        self.0.lock().unwrap().get(&cgroup).cloned()
    }
}

fn nowhere() -> Logs {
    Logs { pods: "/nonexistent".into(), containers: "/nonexistent".into() }
}

fn directory(paths: &[(u64, &str)]) -> (Directory, Told) {
    let told = Told::default();
    for (cgroup, path) in paths {
        told.set(*cgroup, path);
    }
    (Directory::start_with(Box::new(told.clone()), nowhere()).unwrap(), told)
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
    let identity = directory.resolve(5).unwrap();
    assert_eq!(directory.identity(5), Known::Of(identity));
    assert_eq!(directory.resolve(6), None);
    assert_eq!((directory.identity(6), directory.unresolved()), (Known::Host, 1));
}

#[test]
fn an_answer_stays() {
    let (directory, told) = directory(&[(5, "/system.slice/nginx.service")]);
    let before = settled(&directory, 5);
    told.set(5, "/system.slice/other.service");
    assert_eq!(directory.identity(5), before);
    told.remove(5);
    assert_eq!((directory.resolve(5).map(Known::Of), directory.unresolved()), (Some(before), 0));
    assert_eq!(directory.resolve(6), None);
    told.set(6, "/system.slice/late.service");
    assert_eq!(directory.resolve(6), None, "its first spans were told as the host's");
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
    let directory = Directory::start_with(Box::new(told.clone()), logs.clone()).unwrap();
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
    assert!(!pod(&directory.resolve(6).unwrap()), "no name was there yet");
    std::fs::create_dir_all(logs.pods.join(format!("shop_web_{UID}/nginx"))).unwrap();
    let Known::Of(identity) = settled(&directory, 5) else { panic!("it has an owner") };
    assert!(pod(&identity), "{identity:?}");
    assert!(!pod(&directory.resolve(6).unwrap()), "an answer stays");
    assert_eq!(directory.unresolved(), 0);
}

#[test]
fn only_what_is_gone_and_not_asked_for_is_forgotten() {
    let (directory, told) = directory(&[(5, "/a.service"), (6, "/b.service"), (7, "/c.service")]);
    let resolve = |cgroup| name(&Known::Of(directory.resolve(cgroup).unwrap())).unwrap();
    assert_eq!([5, 6, 7].map(resolve), ["a", "b", "c"]);
    told.remove(5);
    told.remove(6);
    let shared = &directory.0;
    let later = KEPT.as_secs() as u32 + 1;
    shared.now.store(later, Ordering::Relaxed);
    assert!(directory.note(6), "somebody still asks");
    shared.sweep(&mut **shared.finder());
    let left: std::collections::BTreeSet<u64> = shared.read().keys().copied().collect();
    assert_eq!(left, [6, 7].into());
}

#[test]
fn the_directory_is_bounded() {
    let entry = |asked| Entry { state: State::Settled(None), asked: AtomicU32::new(asked) };
    let mut known: HashMap<u64, Entry> = (0..LIMIT as u64).map(|id| (id, entry(id as u32))).collect();
    make_room(&mut known);
    assert_eq!(known.len(), LIMIT - LIMIT / 8);
    assert_eq!(known.keys().min(), Some(&(LIMIT as u64 / 8)), "the oldest ones go");
    make_room(&mut known);
    assert_eq!(known.len(), LIMIT - LIMIT / 8, "there is room");
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
