//! A network namespace for one test, and its witnesses: `ip`, and packet sockets on the far end of the cable.

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a test in a thread with a network namespace and a runtime of its own. `ip` joins it, as children do.
pub fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("a private network namespace needs root");
        run("ip", "link set lo up");
        run("ip", "link add eth0 type veth peer name far0");
        run("ip", "addr add 192.0.2.2/24 dev eth0");
        run("ip", "addr add 2001:db8::2/64 dev eth0 nodad");
        run("ip", "link set eth0 up");
        run("ip", "link set far0 up");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// What `ip` says of an address on eth0.
pub fn in_kernel(text: &str) -> Option<Value> {
    let shown: Value = serde_json::from_str(&run("ip", "-j addr show dev eth0")).unwrap();
    shown[0]["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .find(|info| info["local"] == text)
        .cloned()
}

/// Waits for a condition that the kernel alone brings about.
pub async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begin.elapsed()
}

/// A packet socket for one protocol: such a one hears what a device receives, not what it sends.
pub fn received(ethertype: u16) -> socket2::Socket {
    let socket = socket2::Socket::new(
        socket2::Domain::PACKET,
        socket2::Type::RAW,
        Some(socket2::Protocol::from(i32::from(ethertype.to_be()))),
    )
    .unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

pub fn mac(device: &str) -> Vec<u8> {
    let shown: Value =
        serde_json::from_str(&run("ip", &format!("-j link show dev {device}"))).unwrap();
    let text = shown[0]["address"].as_str().unwrap();
    text.split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

pub async fn hears(socket: &mut socket2::Socket, wanted: impl Fn(&[u8]) -> bool) {
    let mut buffer = [0; 2048];
    until("a frame on the far end", Duration::from_secs(10), || {
        while let Ok(length) = socket.read(&mut buffer) {
            // Shorter ones cannot be announcements; what is beyond the length is zero or older.
            if length >= 42 && wanted(&buffer) {
                return true;
            }
        }
        false
    })
    .await;
}
