use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// A listener and both ends of a connection, and a filter for them alone: other tests use the same namespace.
fn pair(address: &str) -> (TcpListener, TcpStream, TcpStream, Diag) {
    let listener = TcpListener::bind(address).unwrap();
    let to = listener.local_addr().unwrap();
    let client = TcpStream::connect(to).unwrap();
    let (server, _) = listener.accept().unwrap();
    let filter = Admitted { ports: vec![to.port()], ..Admitted::default() };
    (listener, client, server, Diag::new(filter))
}

#[test]
fn counts_a_listener_and_its_connection() {
    for (address, network) in [("127.0.0.1:0", Network::Ipv4), ("[::1]:0", Network::Ipv6)] {
        let (listener, mut client, _server, mut diag) = pair(address);
        client.write_all(b"four").unwrap();
        let port = listener.local_addr().unwrap().port();
        diag.count().unwrap();
        let sums = diag.take().unwrap();
        let [row] = sums.listeners.as_slice() else { panic!("{:?}", sums.listeners) };
        assert_eq!((row.port, row.address()), (port, listener.local_addr().unwrap().ip()));
        assert!(row.accept_limit > 0 && row.inode != 0 && row.cookie != 0, "{row:?}");
        let of = |state, port| {
            let which = |group: &&Group| group.state == state && group.port == port && group.network == network;
            sums.groups.iter().find(which).map(|group| (group.sockets, group.receive_queue))
        };
        assert_eq!(of(State::Listen, Some(port)), Some((1, 0)));
        assert_eq!(of(State::Established, Some(port)), Some((1, 4)));
        assert_eq!(of(State::Established, None), Some((1, 0)));
        assert_eq!(sums.sockets(|_| true), 3);
        assert_eq!(diag.take().unwrap(), Sums::default(), "what is taken is gone");
    }
}

#[test]
fn ports_are_taken_whatever_is_admitted() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (listener, client, _server, _diag) = pair(address);
        let mut diag = Diag::new(Admitted { ports: vec![1], ..Admitted::default() });
        let taken = diag.count().unwrap();
        let mut ports = PortSet::default();
        ports.insert(listener.local_addr().unwrap().port());
        ports.insert(client.local_addr().unwrap().port());
        assert_eq!((ports.len(), taken.shared_with(&ports)), (2, 2));
        assert_eq!(diag.take().unwrap(), Sums::default(), "none is admitted");
    }
}

#[test]
fn lists_what_is_asked_for() {
    let (listener, mut client, mut server, mut diag) = pair("127.0.0.1:0");
    client.write_all(b"seven b").unwrap();
    server.read_exact(&mut [0; 7]).unwrap();
    let mut rows = Vec::new();
    diag.list(States::FULL, &mut |socket| rows.push(*socket)).unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    let local = |row: &Socket| SocketAddr::new(row.ends.local_address(), row.ends.local_port);
    let row = rows.iter().find(|row| local(row) == client.local_addr().unwrap()).unwrap();
    assert_eq!((row.state, row.form), (State::Established, Form::Full));
    let inode = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&client.as_fd()))).unwrap();
    assert_eq!(inode.to_str(), Some(format!("socket:[{}]", row.inode).as_str()));
    let measures = row.measures.unwrap();
    assert_eq!(measures.bytes_sent, 7);
    assert!(measures.srtt_us > 0 && measures.snd_cwnd > 0, "{measures:?}");
    assert!(row.sent_ago_ns.unwrap() < 60_000_000_000);

    rows.clear();
    diag.list(States::LISTEN, &mut |socket| rows.push(*socket)).unwrap();
    assert_eq!(rows.iter().map(local).collect::<Vec<_>>(), [listener.local_addr().unwrap()]);
    assert_eq!(rows[0].measures, None);
}

#[test]
fn a_minisock_is_no_full_socket() {
    let (_listener, client, server, mut diag) = pair("127.0.0.1:0");
    drop(client);
    (&server).read_exact(&mut [0]).unwrap_err();
    let forms = |diag: &mut Diag, states| {
        let mut forms = Vec::new();
        diag.list(states, &mut |socket| forms.push((socket.state, socket.form))).unwrap();
        forms
    };
    let timewait = States(1 << state::TIME_WAIT);
    // The ACK of a FIN may be delayed.
    let mut settled = |wanted| {
        let end = Instant::now() + Duration::from_secs(20);
        while forms(&mut diag, timewait) != [(wanted, Form::Timewait)] {
            assert!(Instant::now() < end, "no {wanted:?}: {:?}", forms(&mut diag, timewait));
            thread::sleep(Duration::from_millis(5));
        }
    };
    settled(State::FinWait2);
    drop(server);
    settled(State::TimeWait);
    assert!(forms(&mut diag, States::FULL).iter().all(|(_, form)| *form == Form::Full));
}

#[test]
fn the_end_of_a_dump_tells_what_went_wrong() {
    assert!(errno(&0_i32.to_ne_bytes()).is_ok() && errno(&[]).is_ok());
    let missing = errno(&(-libc::ENOENT).to_ne_bytes()).unwrap_err();
    assert!(missing.to_string().contains("tcp_diag"), "{missing}");
    assert_eq!(errno(&(-libc::EPERM).to_ne_bytes()).unwrap_err().raw_os_error(), Some(libc::EPERM));
}

#[test]
fn a_request_is_for_the_closest_listener() {
    let at = |text: &str| match text.parse().unwrap() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(ip) => ip.octets(),
    };
    let row = |local| Listener {
        netns: 1,
        local: at(local),
        port: 80,
        cgroup: 0,
        cookie: 0,
        inode: 0,
        uid: 0,
        accept_queue: 0,
        accept_limit: 0,
        half_open: 0,
        oldest_ns: None,
    };
    let rows = ["::", "0.0.0.0", "10.0.0.1"].map(row);
    for (local, wanted) in [("10.0.0.1", 2), ("10.0.0.2", 1), ("fd00::1", 0)] {
        assert_eq!(listener_of(&rows, &[0, 1, 2], at(local)), Some(wanted), "{local}");
    }
    assert_eq!(listener_of(&rows, &[0], at("10.0.0.1")), Some(0), "a listener of both families");
    assert_eq!(listener_of(&rows, &[2], at("10.0.0.2")), None);
}
