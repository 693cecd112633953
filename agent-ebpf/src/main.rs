//! The kernel side of synfin. `probes/` holds a file for each tracepoint, `iter/` one for each walk over all sockets; all reading of kernel structs is in
//! [`sock`], all writing to the ring in [`emit`], all maps in [`maps`], all filters in [`admit`]. Each probe is written
//! once and has an entry point for each [`rung`] of the ladder.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "every kernel load and every helper call is unsafe by nature")]
#![expect(clippy::inline_always, reason = "the verifier follows a typed pointer through one function, not into a call")]
#![expect(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value")]
#![expect(clippy::cast_ptr_alignment, reason = "BPF loads and stores of kernel fields are as aligned as the kernel's")]

mod admit;
mod atomic;
mod emit;
mod field;
mod iter;
mod lane;
mod maps;
mod probes;
mod read;
mod record;
mod rung;
mod sock;

/// Nothing here can panic: the verifier would refuse the endless loop if this were reachable.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers such as `bpf_skc_to_tcp_sock` are for programs under a licence that is compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
