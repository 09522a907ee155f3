//! What libc says of randomness and time, once a run has begun: the run's numbers and the run's clock.
//!
//! Libraries ask libc behind our back: hash maps for their keys, openraft for its election timeouts, timers for a base.
//! Symbols of the executable win over libc's, so these four answer all of them. Linked into the simulator only.
//!
//! Must never: allocate, lock, or call anything that asks for time or randomness itself.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// 2026-01-01T00:00:00Z in seconds: where the wall clock of every run begins.
pub const EPOCH_SECONDS: u64 = 1_767_225_600;
/// Where the monotonic clock begins, in seconds: not at zero, since a machine has booted before its processes start.
const BOOTED_SECONDS: u64 = 1_000;
const NANOS: u64 = 1_000_000_000;

static ON: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static NOW_NANOS: AtomicU64 = AtomicU64::new(0);

/// From here on this process lives in the run of `seed`.
pub fn begin(seed: u64) {
    RANDOM.store(seed, Relaxed);
    NOW_NANOS.store(0, Relaxed);
    ON.store(true, Relaxed);
    // The keys of this thread's hash maps, drawn here and not whenever the first map happens to be made.
    let _ = std::hash::RandomState::new();
}

/// Sets the run's clock, in nanoseconds since its beginning.
pub(crate) fn set_now(nanos: u64) {
    NOW_NANOS.store(nanos, Relaxed);
}

fn next() -> u64 {
    let state = RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// libc's `getrandom`.
///
/// # Safety
/// As libc's: `buf` points to `len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buf: *mut u8, len: usize, flags: u32) -> isize {
    if !ON.load(Relaxed) {
        // SAFETY: passed on as it came.
        return unsafe { syscall(libc::SYS_getrandom, buf as i64, len as i64, i64::from(flags), 0, 0, 0) as isize };
    }
    // SAFETY: the caller's promise.
    let out = unsafe { std::slice::from_raw_parts_mut(buf, len) };
    for chunk in out.chunks_mut(8) {
        let bytes = next().to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    len as isize
}

/// libc's `getentropy`.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getentropy(buf: *mut u8, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    let got = unsafe { getrandom(buf, len, 0) };
    if got == len as isize { 0 } else { -1 }
}

/// libc's `clock_gettime`.
///
/// # Safety
/// As libc's: `time` points to a writable timespec.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> i32 {
    if !ON.load(Relaxed) {
        // SAFETY: passed on as it came.
        return unsafe { syscall(libc::SYS_clock_gettime, i64::from(clock), time as i64, 0, 0, 0, 0) as i32 };
    }
    let now = NOW_NANOS.load(Relaxed);
    let wall = clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE;
    let base = if wall { EPOCH_SECONDS } else { BOOTED_SECONDS };
    // SAFETY: the caller's promise.
    unsafe { *time = libc::timespec { tv_sec: (base + now / NANOS) as _, tv_nsec: (now % NANOS) as _ } };
    0
}

/// libc's `syscall`, because getrandom 0.2 (below rand 0.8, below openraft 0.9) asks through it.
///
/// Variadic in C; on x86-64 a function of seven register and stack arguments is called the same way.
///
/// # Safety
/// As libc's.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(number: i64, a: i64, b: i64, c: i64, d: i64, e: i64, f: i64) -> i64 {
    if number == libc::SYS_getrandom && ON.load(Relaxed) {
        // SAFETY: the arguments of getrandom.
        return unsafe { getrandom(a as *mut u8, b as usize, c as u32) as i64 };
    }
    let result: i64;
    // SAFETY: the kernel's calling convention; the arguments are the caller's.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _, options(nostack));
        if (-4095..0).contains(&result) {
            *libc::__errno_location() = -result as i32;
            return -1;
        }
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the simulator answers the syscall symbol in x86-64's calling convention only");
