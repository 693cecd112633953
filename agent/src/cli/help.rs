//! The long parts of the help texts: examples and contracts.

pub(super) const TOP: &str = "\
Examples:
  sudo synfin run                              live summary of all connections of this host
  sudo synfin watch --port 443                 every transition of connections with port 443
  sudo synfin watch --json --duration 10s      ten seconds as JSON lines, for a script
  sudo synfin run --otlp-endpoint http://localhost:4317
  sudo synfin census                           how many sockets are in which state, now
  sudo synfin doctor                           what this kernel and these privileges allow

Exit codes:
  0   done
  1   failed, or degraded below what is required
  2   wrong command line or configuration; every error is listed
  77  missing privileges: CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN

Flags win over environment variables, these over the file, this over the defaults. Fields of the
file have variables of the form SYNFIN_SECTION_FIELD, e.g. SYNFIN_RING_SIZE=16MiB; OTLP takes
OpenTelemetry's own (OTEL_EXPORTER_OTLP_ENDPOINT, …). Logs go to stderr, output goes to stdout.";

pub(super) const RUN: &str = "\
Examples:
  sudo synfin run
  sudo synfin run --otlp-endpoint http://localhost:4317
  sudo synfin run --otlp-endpoint http://localhost:4318 --otlp-protocol http/protobuf --no-summary
  sudo synfin run --http 127.0.0.1:9464
  sudo synfin run --netns blue --port 80,443 --duration 5m
  synfin run --print-config > config.yaml

OTLP is off until an endpoint is configured by flag, file or OTEL_EXPORTER_OTLP_ENDPOINT. Over
HTTP, /v1/traces, /v1/metrics and /v1/logs are appended to it. --http is off until it is given, has
no password, and tells what docs/METRICS.md lists: a loopback address keeps it to this host. Every
option of the file is explained in etc/synfin.example.yaml.";

pub(super) const WATCH: &str = "\
Examples:
  sudo synfin watch
  sudo synfin watch --peer 10.0.0.0/8 --state syn_sent,established
  sudo synfin watch --netns /proc/4242/ns/net --connections
  sudo synfin watch --json --count 1000 | jq 'select(.type == \"reset\")'

States: listen, syn_sent, syn_received, established, fin_wait_1, fin_wait_2, closing, close_wait,
last_ack, closed; the spellings of ss and the kernel work too (CLOSE-WAIT, SYN_RECV).";

pub(super) const CENSUS: &str = "\
Examples:
  sudo synfin census
  sudo synfin census --netns blue --port 443
  sudo synfin census --by process              whose CLOSE_WAIT it is
  sudo synfin census --sockets --port 443      each of them: timer, how long quiet, who holds it
  sudo synfin census --json | jq 'select(.type == \"census\" and .count > 1000)'

Walks over the kernel's own tables of sockets in every network namespace, TIME_WAIT and half-open
sockets included, and counts them there. fin_wait_2 and time_wait include the minisocks that
outlive their sockets; syn_received is half open.

--by process, cgroup, container, pod, listener or peer counts each socket once, in a row for each
key; what belongs to nothing, or to something unknown, has a row that says so. Containers and pods
are those that the path of the socket's cgroup names. --sockets has a line for each socket.";

pub(super) const DOCTOR: &str = "\
Loads and attaches every probe for a moment, and takes it away again. A line that begins with
`warn` limits what synfin can tell; one that begins with `fail` keeps it from working. Below it
stands what to do.

Each probe stands on the best rung that this kernel takes: tp_btf, then raw_tracepoint, then
tracepoint. All tell the same; without the kernel's types (BTF) only the last one works, and
tells addresses, ports and states alone. --max-rung starts lower down.

With --json, one object with these keys; what is unknown is absent:
  type, version, time             \"doctor\", 1, RFC 3339
  synfin.version                  of this binary
  synfin.health                   healthy; degraded: a probe is missing that is not required, or one
                                  tells only a part; failed
  checks                          array of name, status (ok, warn, fail), detail, remedy
  probes                          array of name, tracepoint, required (boolean), detail,
                                  verdict (active, unsupported, broken, disabled), rung of an
                                  active one (tp_btf, raw_tracepoint, tracepoint), refused: array
                                  of rung and why, for the rungs above it
  linux.kernel.release            as uname -r
  linux.btf.path, linux.btf.size  the kernel's types, in bytes
  linux.lockdown                  none, integrity, confidentiality
  linux.bpf.unprivileged_disabled, linux.bpf.stats_enabled
                                  sysctls: a number, a boolean
  linux.cgroup2.path, linux.tracefs.path
                                  mount points
  linux.netns.inode               network namespace of this process
  linux.capabilities.missing      array of names

Exit codes: 0 healthy or degraded, 1 failed, 77 missing privileges.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  synfin completions bash > /etc/bash_completion.d/synfin
  synfin completions zsh  > ~/.zfunc/_synfin
  synfin completions fish > ~/.config/fish/completions/synfin.fish";

pub(super) const MAN: &str = "\
Examples:
  synfin man | man -l -
  synfin man --dir /usr/local/share/man/man1";
