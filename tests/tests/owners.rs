//! Whose spans are told in whose name: cgroups as a Kubernetes node and systemd make them, real processes in them, and real connections.
//!
//! The witness is `ss --cgroup`, asked while the connections are open: it says in which cgroup each end's socket is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    process::{self, Command},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use synfin_tests::{
    cgroup::Cgroup,
    confine, need,
    otlp::{
        Receiver,
        judge::{Judge, integer, text},
    },
    peer::Peer,
    stage::{Family, Link, Stage},
    synfin::Synfin,
};
use tempfile::TempDir;

/// Longer than the agent leaves events in the ring.
const DRAINED: Duration = Duration::from_millis(500);

/// What `ss` says: the path of the cgroup of each socket, by its port and its peer's.
type Witness = BTreeMap<(u16, u16), String>;

/// Attributes of an owner's resource beside those of the host; a number is an integer.
type Wanted = BTreeMap<&'static str, String>;

/// Those that may be among them.
const OF_OWNERS: [&str; 6] =
    ["container.id", "k8s.container.name", "k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "service.name"];

/// A cgroup with a process in it, and what its connections must be told with; None: in the agent's name.
struct Owner {
    peer: Peer,
    /// Behind its process, so that it is dropped after it.
    cgroup: Cgroup,
    wanted: Option<Wanted>,
    /// Connections that it opens.
    connections: usize,
}

struct Scene {
    stage: Stage,
    owners: Vec<Owner>,
    /// Where the names of pods are.
    logs: TempDir,
}

/// An id that no other test and no other owner has.
fn unique(owner: u32, digits: usize) -> String {
    format!("{:0digits$x}", u64::from(process::id()) << 16 | u64::from(owner))
}

fn uid(pod: u32) -> String {
    format!("0a1b2c3d-0001-4fff-8abc-{}", unique(pod, 12))
}

impl Scene {
    fn new() -> Result<Self> {
        static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let turn = 16 * COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);

        let stage = Stage::new(Family::V4, Link::Loopback)?;
        let mut scene = Self { stage, owners: Vec::new(), logs: TempDir::new()? };
        let root = format!("/synfin-test-{}-{turn}.slice", process::id());
        let [web, dns] = [uid(turn), uid(turn + 1)];
        let [app, sidecar, resolver, plain] = [2, 3, 4, 5].map(|number| unique(turn + number, 64));
        let burstable = format!(
            "{root}/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
            web.replace('-', "_")
        );
        // Two containers in a pod: only the link of each says which it is.
        scene.log(&format!("shop_web-0_{web}/app"), Some((&app, 2)))?;
        scene.log(&format!("shop_web-0_{web}/sidecar"), Some((&sidecar, 0)))?;
        // One container, as the kubelet leaves it before it has made the link.
        scene.log(&format!("kube-system_dns-7d4b9c-x2k4p_{dns}/resolver"), None)?;
        let of_web = |container: &str, id: &str, restarts: &str| -> Option<Wanted> {
            Some(wanted(&[
                ("container.id", id),
                ("k8s.container.name", container),
                ("k8s.container.restart_count", restarts),
                ("k8s.namespace.name", "shop"),
                ("k8s.pod.name", "web-0"),
                ("k8s.pod.uid", &web),
            ]))
        };
        let of_dns = wanted(&[
            ("container.id", &resolver),
            ("k8s.container.name", "resolver"),
            ("k8s.namespace.name", "kube-system"),
            ("k8s.pod.name", "dns-7d4b9c-x2k4p"),
            ("k8s.pod.uid", &dns),
        ]);
        let service = Some(wanted(&[("service.name", "synfin-test-web")]));
        for (path, wanted, connections) in [
            (format!("{root}/system.slice/synfin-test-web.service/worker"), service.clone(), 1),
            (format!("{burstable}/cri-containerd-{app}.scope"), of_web("app", &app, "2"), 2),
            (format!("{burstable}/crio-{sidecar}.scope"), of_web("sidecar", &sidecar, "0"), 3),
            (format!("{root}/kubepods/besteffort/pod{dns}/{resolver}"), Some(of_dns), 4),
            (format!("{root}/system.slice/docker-{plain}.scope"), Some(wanted(&[("container.id", &plain)])), 5),
            (format!("{root}/system.slice/synfin-test-web.service/other"), service, 6),
            (format!("{root}/user.slice/user-0.slice/session-1.scope"), None, 7),
        ] {
            let cgroup = Cgroup::new(&path).with_context(|| path.clone())?;
            let peer = Peer::start(&scene.stage.client, "owner")?;
            cgroup.take_in(peer.pid())?;
            scene.owners.push(Owner { peer, cgroup, wanted, connections });
        }
        // The one whose parents were made for it comes last when they are dropped.
        scene.owners.reverse();
        Ok(scene)
    }

    /// The folder of a container's logs, and the link to them by its id and restarts.
    fn log(&self, folder: &str, link: Option<(&str, u32)>) -> Result<()> {
        let folder = self.logs.path().join("pods").join(folder);
        fs::create_dir_all(&folder)?;
        let links = self.logs.path().join("containers");
        fs::create_dir_all(&links)?;
        if let Some((id, restarts)) = link {
            symlink(folder.join(format!("{restarts}.log")), links.join(format!("some-name-{id}.log")))?;
        }
        Ok(())
    }

    /// Lets the service listen, and each owner open its connections to it. Gives what `ss` says of the sockets: the cgroup's path by
    /// local and peer's port, with the service's port.
    fn connect(&mut self) -> Result<(u16, Witness)> {
        let listener = self.owners.len() - 1;
        let on = self.stage.server.at(0);
        let address = self.owners[listener].peer.listen(on)?;
        for number in 0..self.owners.len() {
            for _ in 0..self.owners[number].connections {
                self.owners[number].peer.connect(address)?;
                self.owners[listener].peer.accept()?;
            }
        }
        let said = self.stage.client.netns.run(|| need::run(Command::new("ss").args(["-tnH", "--cgroup"])))?;
        let sockets = said.lines().map(witnessed).collect::<Result<_>>().with_context(|| said.clone())?;
        Ok((address.port(), sockets))
    }

    /// What must be told of sockets in the cgroup of this path.
    fn wanted(&self, path: &str) -> Result<Option<&Wanted>> {
        let owner = self.owners.iter().find(|owner| owner.cgroup.path() == path);
        Ok(owner.with_context(|| format!("{path} is nobody's"))?.wanted.as_ref())
    }
}

fn wanted(attributes: &[(&'static str, &str)]) -> Wanted {
    attributes.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

/// Ports and cgroup of a line of `ss -tnH --cgroup`.
fn witnessed(line: &str) -> Result<((u16, u16), String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |at: usize| -> Result<u16> { Ok(fields.get(at).context("no address")?.parse::<SocketAddr>()?.port()) };
    let cgroup = fields.iter().find_map(|field| field.strip_prefix("cgroup:")).context("no cgroup")?;
    Ok(((port(3)?, port(4)?), cgroup.to_owned()))
}

/// What a resource says of an owner.
fn told(resource: &[KeyValue]) -> Wanted {
    let texts = OF_OWNERS.iter().filter_map(|key| Some((*key, text(resource, key)?.to_owned())));
    let restarts = integer(resource, "k8s.container.restart_count");
    texts.chain(restarts.map(|count| ("k8s.container.restart_count", count.to_string()))).collect()
}

/// How often the scene is played until the kernel has skipped nothing of it.
const ATTEMPTS: u32 = 5;

/// The kernel skips a program that another task on the same CPU was preempted in. Then an end may have been missed, and the scene is
/// played again: a play without it must agree in everything.
fn prove(confined: bool, whole: bool) -> Result<()> {
    let mut missed = 0;
    for _ in 0..ATTEMPTS {
        missed = play(Scene::new()?, confined, whole)?;
        if missed == 0 {
            return Ok(());
        }
    }
    bail!("ends were missed in each of {ATTEMPTS} plays, {missed} in the last one")
}

/// Starts an agent on the scene's namespace, plays the scene, takes its processes and cgroups away, and looks at what has come. Gives how
/// many ends were missed.
fn play(mut scene: Scene, confined: bool, whole: bool) -> Result<u64> {
    let receiver = Receiver::start()?;
    let endpoint = receiver.endpoint();
    let (pods, containers) = (scene.logs.path().join("pods"), scene.logs.path().join("containers"));
    let synfin = Synfin::serve_as([&scene.stage.client.netns], &["-v", "--otlp-endpoint", &endpoint], |command| {
        command.env("SYNFIN_OWNERS_POD_LOGS", pods).env("SYNFIN_OWNERS_CONTAINER_LOGS", containers);
        command.env("SYNFIN_OTLP_RESOURCES", if whole { "host" } else { "owner" });
        if confined {
            confine::without(command, &[confine::CAP_DAC_READ_SEARCH]);
        }
    })?;
    let (service, witness) = scene.connect()?;
    let ids: BTreeMap<String, u64> = scene
        .owners
        .iter()
        .map(|owner| Ok((owner.cgroup.path().to_owned(), owner.cgroup.id()?)))
        .collect::<Result<_>>()?;
    // A cgroup has to live for as long as it takes to look at it: a walk over all of them is made once a second at most.
    thread::sleep(if confined { 4 * DRAINED } else { DRAINED });
    for owner in &mut scene.owners {
        owner.peer.close()?;
    }
    for owner in &mut scene.owners {
        owner.peer.kill()?;
        owner.cgroup.remove();
        ensure!(!owner.cgroup.folder().exists(), "{} cannot be removed", owner.cgroup.path());
    }
    scene.stage.await_quiet()?;
    let log = synfin.terminate()?.stderr;
    // Otherwise one way is played twice.
    let walked = log.iter().any(|line| line.contains("cgroups are found by walking over all of them"));
    ensure!(walked == confined, "walked: {walked}; {}", log.join("\n"));

    let opened: usize = scene.owners.iter().map(|owner| owner.connections).sum();
    ensure!(witness.len() == 2 * opened, "ss saw {} sockets of {opened} connections: {witness:?}", witness.len());
    receiver.look(|judge| {
        judge.verdict()?;
        let mut met = BTreeSet::new();
        for span in &judge.spans {
            let port = |key: &str| integer(&span.attributes, key).and_then(|port| u16::try_from(port).ok());
            let ports = port("network.local.port").zip(port("network.peer.port")).context("no ports")?;
            let path = witness.get(&ports).with_context(|| format!("nobody made {span:?}"))?;
            ensure!(met.insert(ports), "two spans of {ports:?}");
            ensure!(integer(&span.attributes, "linux.cgroup.id") == Some(ids[path].cast_signed()), "{path}: {span:?}");
            let resource = judge.resource_of(span);
            match scene.wanted(path)?.filter(|_| !whole) {
                Some(wanted) => {
                    ensure!(told(resource) == *wanted, "{path}: {resource:?}");
                    for key in ["host.name", "host.arch", "os.type"] {
                        ensure!(text(resource, key) == text(&judge.resource, key), "{key}: {resource:?}");
                    }
                }
                None => ensure!(resource == judge.resource, "{path}: {resource:?}"),
            }
        }
        ensure!(met.len() == witness.len(), "{} spans of {} sockets: {}", met.len(), witness.len(), judge.summary());
        // One for each owner, the service with its two cgroups being one, and the agent's.
        let resources = if whole { 1 } else { 6 };
        ensure!(judge.resources.len() == resources, "{} resources: {:?}", judge.resources.len(), judge.resources);
        let instances: BTreeSet<_> = judge.resources.iter().map(|one| text(one, "service.instance.id")).collect();
        ensure!(instances.len() == resources && !instances.contains(&None), "{instances:?}");
        counted(&scene, &witness, service, whole, judge)
    })
}

/// Metrics count each connection for its owner, as `ss` saw it, and the sum over all is the host's. Gives how many ends were missed, which
/// therefore have no duration.
fn counted(scene: &Scene, witness: &Witness, service: u16, whole: bool, judge: &Judge) -> Result<u64> {
    let mut expected: BTreeMap<(Wanted, &str), f64> = BTreeMap::new();
    for ((local, _), path) in witness {
        let role = if *local == service { "server" } else { "client" };
        let owner = scene.wanted(path)?.filter(|_| !whole).cloned().unwrap_or_default();
        *expected.entry((owner, role)).or_default() += 1.0;
    }
    for metric in ["opened", "successes"] {
        let mut found: BTreeMap<(Wanted, &str), f64> = BTreeMap::new();
        for point in judge.series.points(&format!("system.network.tcp.connection.{metric}")) {
            let role = point.attributes.get("network.tcp.handshake.role").context("no role")?;
            let role = if role == "server" { "server" } else { "client" };
            let resource = &judge.resources[point.resource];
            let owner = if *resource == judge.resource { Wanted::new() } else { told(resource) };
            if point.value > 0.0 {
                *found.entry((owner, role)).or_default() += point.value;
            }
        }
        ensure!(found == expected, "{metric}: {found:?}, by ss {expected:?}");
    }
    let missed = judge.ends.get("lost").copied().unwrap_or_default();
    let skipped = judge.series.sum("synfin.events.lost", &[("synfin.loss.reason", "recursion")]);
    ensure!(missed as f64 <= skipped, "{missed} ends were missed, and the kernel skipped {skipped} programs");
    let sockets = witness.len() as f64;
    let timed = sockets - missed as f64;
    for (metric, expected) in
        [("connection.ended", sockets), ("connection.duration", timed), ("peer.connection.ended", sockets)]
    {
        let sum = judge.series.sum(&format!("system.network.tcp.{metric}"), &[]);
        ensure!(
            (sum - expected).abs() < 0.5,
            "{metric}: {sum} of {expected}; ends {:?}, {skipped} skipped, {:?}",
            judge.ends,
            judge.series.points(&format!("system.network.tcp.{metric}")).collect::<Vec<_>>()
        );
    }
    Ok(missed)
}

#[test]
fn each_span_is_told_in_the_name_of_its_owner() -> Result<()> {
    prove(false, false)
}

/// Without the right to open a cgroup by its id all of them are walked over.
#[test]
fn without_the_right_to_handles_it_is_the_same() -> Result<()> {
    prove(true, false)
}

/// `otlp.resources: host`
#[test]
fn all_in_the_name_of_the_agent() -> Result<()> {
    prove(false, true)
}
