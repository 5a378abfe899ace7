//! Listening for claims of others on addresses that are held here: two packet sockets, one for ARP and one for neighbour
//! advertisements, whose filters in the kernel (classic BPF) let nothing else pass. While nothing is held they let nothing
//! pass at all.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;

use lvs_core::fence::claim::{Claim, HardwareAddress, Listening};
use nix::libc;
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::clock;
use super::fence::FenceReport;
use crate::kernel::link_watch::Links;
use crate::kernel::subscription::readable;

#[allow(clippy::cast_possible_truncation)]
const PACKET_FAMILY: libc::sa_family_t = libc::AF_PACKET as libc::sa_family_t;
#[allow(clippy::cast_possible_truncation)]
const LINK_ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
/// EtherTypes.
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// A packet that claims something is not longer; of a longer one the rest is not needed.
const PACKET_BYTES: usize = 512;
/// Comparisons in a filter at most, as a jump spans no more than 255 instructions. With more addresses than that every
/// claim is looked at here.
const COMPARISONS: usize = 250;

// Classic BPF (`include/uapi/linux/bpf_common.h`).
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const WHOLE_PACKET: u32 = u32::MAX;

/// The open sockets.
#[derive(Debug)]
pub struct ClaimWatch {
    arp: AsyncFd<Socket>,
    ipv6: AsyncFd<Socket>,
}

impl ClaimWatch {
    /// Opens the sockets in the network namespace of this thread. Must be called inside the runtime.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            arp: open(ARP)?,
            ipv6: open(IPV6)?,
        })
    }

    /// Passes on what others claim of held addresses, for ever; an end is an error. `notice` must not wait.
    pub async fn run(
        self,
        mut links: watch::Receiver<Links>,
        mut addresses: watch::Receiver<FenceReport>,
        notice: impl Fn(Claim),
    ) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut listening = Listening::default();
        listening.own(own(&links.borrow_and_update()));
        let mut filtered = BTreeSet::new();
        loop {
            let held = held(&addresses.borrow_and_update());
            if held != filtered {
                self.arp.get_ref().attach_filter(&arp_filter(&held))?;
                self.ipv6.get_ref().attach_filter(&ipv6_filter(&held))?;
                listening.hold(held.clone());
                filtered = held;
            }
            let claim = tokio::select! {
                changed = addresses.changed() => {
                    changed.map_err(|_| gone())?;
                    continue;
                }
                changed = links.changed() => {
                    changed.map_err(|_| gone())?;
                    listening.own(own(&links.borrow_and_update()));
                    continue;
                }
                packet = receive(&self.arp) => Claim::from_arp(&packet?),
                packet = receive(&self.ipv6) => Claim::from_ipv6(&packet?),
            };
            if let Some(claim) = claim
                && listening.heeds(&claim, clock::now())
            {
                notice(claim);
            }
        }
    }
}

fn held(report: &FenceReport) -> BTreeSet<IpAddr> {
    let addresses = report.routers.values().flat_map(|router| &router.held);
    addresses.map(|address| address.address).collect()
}

fn own(links: &Links) -> BTreeSet<HardwareAddress> {
    let addresses = links.values().map(|link| link.hardware_address.as_slice());
    addresses
        .filter_map(|address| Some(HardwareAddress(address.try_into().ok()?)))
        .collect()
}

/// A packet socket without the link's headers. It is deaf until its filter stands.
fn open(ethertype: u16) -> io::Result<AsyncFd<Socket>> {
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    socket.bind(&every_device(ethertype))?;
    readable(socket)
}

#[allow(unsafe_code)]
fn every_device(ethertype: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain data, smaller than the storage, and every bit pattern is valid.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = PACKET_FAMILY;
    link.sll_protocol = ethertype.to_be();
    // SAFETY: the storage holds a sockaddr_ll of this length.
    unsafe { SockAddr::new(storage, LINK_ADDRESS_BYTES) }
}

/// The next packet, or an empty one when there was something else to report.
async fn receive(socket: &AsyncFd<Socket>) -> io::Result<Vec<u8>> {
    loop {
        let mut ready = socket.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); PACKET_BYTES];
        let received = ready.try_io(|socket| socket.get_ref().recv(&mut buffer));
        match received {
            Ok(Ok(length)) => return Ok(bytes(&buffer[..length])),
            Ok(Err(error)) => match error.raw_os_error() {
                // A device went, or more came than was read: what was missed is said again.
                Some(libc::ENETDOWN | libc::ENOBUFS | libc::EINTR) => return Ok(Vec::new()),
                _ => return Err(error),
            },
            Err(_would_block) => {}
        }
    }
}

#[allow(unsafe_code)]
fn bytes(received: &[MaybeUninit<u8>]) -> Vec<u8> {
    // SAFETY: the kernel has written all of it.
    received
        .iter()
        .map(|byte| unsafe { byte.assume_init() })
        .collect()
}

/// ARP packets whose sender has one of the addresses.
fn arp_filter(held: &BTreeSet<IpAddr>) -> Vec<SockFilter> {
    const SENDER_PROTOCOL_ADDRESS: u32 = 14;
    let words = held.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(u32::from(*address)),
        IpAddr::V6(_) => None,
    });
    one_of(SENDER_PROTOCOL_ADDRESS, words.collect())
}

/// Neighbour advertisements whose target has one of the addresses, by its last four bytes.
fn ipv6_filter(held: &BTreeSet<IpAddr>) -> Vec<SockFilter> {
    const NEXT_HEADER: (u32, u32) = (6, 58);
    const TYPE: (u32, u32) = (40, 136);
    const TARGET_END: u32 = 40 + 8 + 12;
    let words = held.iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            Some(u32::from_be_bytes([a, b, c, d]))
        }
    });
    let mut program = Vec::new();
    for (offset, value) in [NEXT_HEADER, TYPE] {
        program.push(SockFilter::new(LOAD_BYTE, 0, 0, offset));
        program.push(SockFilter::new(JUMP_IF_EQUAL, 1, 0, value));
        program.push(SockFilter::new(RETURN, 0, 0, 0));
    }
    program.extend(one_of(TARGET_END, words.collect()));
    program
}

/// Packets whose word at `offset` is one of `words`; all of them when there are too many to compare.
fn one_of(offset: u32, words: BTreeSet<u32>) -> Vec<SockFilter> {
    let accept = SockFilter::new(RETURN, 0, 0, WHOLE_PACKET);
    if words.len() > COMPARISONS {
        return vec![accept];
    }
    let mut program = vec![SockFilter::new(LOAD_WORD, 0, 0, offset)];
    let count = words.len();
    for (index, word) in words.into_iter().enumerate() {
        // Over the comparisons that are left and the refusal.
        let jump = u8::try_from(count - index).unwrap_or(u8::MAX);
        program.push(SockFilter::new(JUMP_IF_EQUAL, jump, 0, word));
    }
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program.push(accept);
    program
}
